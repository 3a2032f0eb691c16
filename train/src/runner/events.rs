//! TensorBoard's event files: records of protobuf, each with checksums.
//!
//! A record is: length (u64), masked CRC-32C of the length (u32), data, masked CRC-32C of the data (u32), little-endian throughout. The data
//! is an `Event` of TensorFlow's event.proto: wall_time = 1 (double), step = 2 (int64), file_version = 3 (string), summary = 5 (message with
//! value = 1: tag = 1, simple_value = 2), session_log = 7 (status = 1). A session log of status START makes readers forget later steps
//! of earlier files, which a resumed run does again.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use anchorite_encoder::model::wire::{put_bytes, put_varint};

/// An event file being written.
#[derive(Debug)]
pub struct EventWriter {
    file: File,
}

/// `SessionLog.START`.
const START: u64 = 1;

impl EventWriter {
    /// A new file in `folder`. `wall` is seconds since 1970; `step` is where the run goes on.
    ///
    /// # Errors
    /// The system's word.
    pub fn create(folder: &Path, wall: f64, step: u64) -> io::Result<Self> {
        let path = Self::path(folder, wall);
        let mut writer = Self { file: OpenOptions::new().create(true).append(true).open(path)? };
        let mut version = event(wall, 0);
        put_bytes(&mut version, 3, b"brain.Event:2");
        writer.record(&version)?;
        if step > 0 {
            let mut restart = event(wall, step);
            let mut log = Vec::new();
            put_varint(&mut log, 1 << 3);
            put_varint(&mut log, START);
            put_bytes(&mut restart, 7, &log);
            writer.record(&restart)?;
        }
        Ok(writer)
    }

    /// Readers take files with this beginning, in the order of their names.
    fn path(folder: &Path, wall: f64) -> PathBuf {
        folder.join(format!("events.out.tfevents.{wall:.0}.anchorite"))
    }

    /// Appends scalars of one step.
    ///
    /// # Errors
    /// The system's word.
    pub fn scalars(&mut self, wall: f64, step: u64, values: &[(String, f64)]) -> io::Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut entry = Vec::new();
            put_bytes(&mut entry, 1, tag.as_bytes());
            put_varint(&mut entry, 2 << 3 | 5);
            entry.extend_from_slice(&(*value as f32).to_le_bytes());
            put_bytes(&mut summary, 1, &entry);
        }
        let mut data = event(wall, step);
        put_bytes(&mut data, 5, &summary);
        self.record(&data)
    }

    fn record(&mut self, data: &[u8]) -> io::Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(data.len() + 16);
        record.extend_from_slice(&length);
        record.extend_from_slice(&masked(&length).to_le_bytes());
        record.extend_from_slice(data);
        record.extend_from_slice(&masked(data).to_le_bytes());
        self.file.write_all(&record)
    }
}

fn event(wall: f64, step: u64) -> Vec<u8> {
    let mut data = Vec::new();
    put_varint(&mut data, 1 << 3 | 1);
    data.extend_from_slice(&wall.to_le_bytes());
    put_varint(&mut data, 2 << 3);
    put_varint(&mut data, step);
    data
}

/// TensorFlow's masking, so that checksums of data that hold checksums stay good.
fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xA282_EAD8)
}

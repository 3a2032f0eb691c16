//! The ONNX Runtime builds that are fetched when the machine has none: one PyPI wheel and one npm tarball per platform,
//! each with the digests of the archive and of the library in it, taken from downloads of those exact files.
//!
//! The wheel is for one Python version, but the library in it has no Python in it; any Python's `pip` can fetch it.

use std::borrow::Cow;

use crate::fetch::{Package, Registry, Sha256, WheelTags};

/// Version of the PyPI wheel.
pub const PYPI_VERSION: &str = "1.31.1";
/// Version of the npm package; the newest that npm had when PyPI had [`PYPI_VERSION`].
pub const NPM_VERSION: &str = "1.30.0";

const INSTEAD: &str = "point ORT_DYLIB_PATH (or --ort-library) at an ONNX Runtime library of your own";

/// A platform and its two builds.
struct Pin {
    os: &'static str,
    arch: &'static str,
    wheel_tag: &'static str,
    wheel: (&'static str, u64),
    wheel_member: (&'static str, &'static str, u64),
    npm_member: (&'static str, &'static str, u64),
}

/// The npm tarball carries all platforms.
const NPM_ARCHIVE: (&str, u64) = ("6e3390d6b783e7be946fad629292799da28d0b42f84856e50d2c1b0383291e75", 113_507_888);

const PINS: &[Pin] = &[
    Pin {
        os: "linux",
        arch: "x86_64",
        wheel_tag: "manylinux_2_28_x86_64",
        wheel: ("5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f", 23_753_652),
        wheel_member: (
            "onnxruntime/capi/libonnxruntime.so.1.31.1",
            "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3",
            29_352_200,
        ),
        npm_member: (
            "package/bin/napi-v6/linux/x64/libonnxruntime.so.1",
            "ffb75a925ba05e47b235bb66e3e3911714a80b328a9c9425539feb204aa32a23",
            45_828_512,
        ),
    },
    Pin {
        os: "linux",
        arch: "aarch64",
        wheel_tag: "manylinux_2_28_aarch64",
        wheel: ("da05378364c44d4407e463982d2bf8d5e4cfea873283757e48beeb41df97b7f3", 21_413_526),
        wheel_member: (
            "onnxruntime/capi/libonnxruntime.so.1.31.1",
            "8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467",
            25_265_040,
        ),
        npm_member: (
            "package/bin/napi-v6/linux/arm64/libonnxruntime.so.1",
            "1f549d46250b005580b597f4164984aaf75b3bcb9f3aeb07c7f8a8fe60b23c76",
            25_135_496,
        ),
    },
    Pin {
        os: "macos",
        arch: "aarch64",
        wheel_tag: "macosx_14_0_arm64",
        wheel: ("60b6b69bfe580eab576cacc5d132a0e9cf2a37fcfd18d46dd191042b1d1ed0d7", 20_871_676),
        wheel_member: (
            "onnxruntime/capi/libonnxruntime.1.31.1.dylib",
            "f8b06155feece624e55e49124340eea279da812529ae6fbc46a9f2be9c9cad2e",
            33_037_336,
        ),
        npm_member: (
            "package/bin/napi-v6/darwin/arm64/libonnxruntime.1.30.0.dylib",
            "685d2be5dba1309c89d3a5324b7fd06a5c42f1a61bfea32d14c4cc28d072121d",
            44_589_928,
        ),
    },
    Pin {
        os: "windows",
        arch: "x86_64",
        wheel_tag: "win_amd64",
        wheel: ("c3d91b5de31e2fc82d71bd65b2b22bddee8b49057a3a36338e9a868e0ea90c05", 14_885_761),
        wheel_member: (
            "onnxruntime/capi/onnxruntime.dll",
            "8482d2ee174e28504f99730fb01d6861575870283de4ed3a897ad39170d9a9b9",
            19_288_888,
        ),
        npm_member: (
            "package/bin/napi-v6/win32/x64/onnxruntime.dll",
            "508c362f5673483dd3a086379c392795b2e42d10d5e6f3f90ebd7ac21c97af67",
            28_754_232,
        ),
    },
    Pin {
        os: "windows",
        arch: "aarch64",
        wheel_tag: "win_arm64",
        wheel: ("93800007a7023b3ab26ad72e6463d0d57d84ead49a2f6341954d91438e046bc0", 14_735_267),
        wheel_member: (
            "onnxruntime/capi/onnxruntime.dll",
            "f4f7729bf4aa0c78b6ab5253747f3593bb9a28b4c4275a0a9f59f04ea580d61f",
            19_171_640,
        ),
        npm_member: (
            "package/bin/napi-v6/win32/arm64/onnxruntime.dll",
            "6c3a2abf5c6aca11c48a0d338a91af309f2266f25ce2e4084e6a87bbcb0fbfd0",
            29_815_136,
        ),
    },
];

/// What to fetch for an operating system and processor (as in [`std::env::consts`]), best first; empty if nothing is
/// pinned for it.
#[must_use]
pub fn packages(os: &str, arch: &str) -> Vec<Package> {
    PINS.iter().filter(|pin| pin.os == os && pin.arch == arch).flat_map(|pin| [wheel(pin), tarball(pin)]).collect()
}

/// What to fetch for the machine this was built for. The pinned Linux builds need glibc, so with musl there is nothing.
#[must_use]
pub fn packages_here() -> Vec<Package> {
    if cfg!(target_env = "musl") { Vec::new() } else { packages(std::env::consts::OS, std::env::consts::ARCH) }
}

fn wheel(pin: &Pin) -> Package {
    let registry = Registry::PyPi(WheelTags {
        platform: pin.wheel_tag.into(),
        python: "3.11".into(),
        implementation: "cp".into(),
        abi: "cp311".into(),
    });
    package(registry, ("onnxruntime", PYPI_VERSION), pin.wheel, pin.wheel_member)
}

fn tarball(pin: &Pin) -> Package {
    package(Registry::Npm, ("onnxruntime-node", NPM_VERSION), NPM_ARCHIVE, pin.npm_member)
}

fn package(
    registry: Registry,
    (name, version): (&'static str, &'static str),
    archive: (&'static str, u64),
    member: (&'static str, &'static str, u64),
) -> Package {
    Package {
        registry,
        name: Cow::Borrowed(name),
        version: Cow::Borrowed(version),
        archive_sha256: Sha256::pinned(archive.0),
        archive_bytes: archive.1,
        member: Cow::Borrowed(member.0),
        member_sha256: Sha256::pinned(member.1),
        member_bytes: member.2,
        instead: Cow::Borrowed(INSTEAD),
    }
}

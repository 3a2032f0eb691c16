//! TLS by rustls: certificates and keys in PEM, TLS 1.2 and 1.3, HTTP/1.1.

use std::sync::Arc;

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::ring,
        pki_types::{
            CertificateDer, PrivateKeyDer,
            pem::{self, PemObject as _},
        },
    },
};

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// No certificate in the file, or a damaged one.
    #[error("the certificate file is not a PEM certificate chain")]
    Certificate {
        /// The parser's word; none where there is no certificate at all.
        source: Option<pem::Error>,
    },
    /// No private key in the file, or a damaged one.
    #[error("the key file is not a PEM private key")]
    Key {
        /// The parser's word.
        source: pem::Error,
    },
    /// They do not belong together, or rustls cannot use them.
    #[error("the certificate and the key cannot be used")]
    Pair(#[from] rustls::Error),
}

/// A server's identity.
#[derive(Clone)]
pub struct Tls {
    pub(crate) acceptor: TlsAcceptor,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// From a certificate chain, the server's own first, and its private key (PKCS#8, PKCS#1 or SEC1), both PEM.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain: Result<Vec<CertificateDer<'static>>, pem::Error> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = chain.map_err(|e| TlsError::Certificate { source: Some(e) })?;
        if chain.is_empty() {
            return Err(TlsError::Certificate { source: None });
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|source| TlsError::Key { source })?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)) })
    }
}

//! TLS, as server and as client: rustls with ring, TLS 1.2 and 1.3 (RFC 8996, RFC 9325).

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{
    self, AlertDescription, ClientConfig, CommonState, DigitallySignedStruct, InconsistentKeys,
    InvalidMessage, RootCertStore, ServerConfig, SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::seldom::Seldom;
use crate::config::Certificate;

/// The certificates of our servers; they can be replaced while connections go on.
#[derive(Debug)]
pub struct ServerTls {
    config: RwLock<Arc<ServerConfig>>,
    /// The clients whose failed handshakes were logged.
    complaints: Seldom,
}

impl ServerTls {
    /// Reads the certificates; the first is for clients that name no host, or one we do not know.
    pub fn load(certificates: &[Certificate]) -> Result<Self, TlsError> {
        let config = RwLock::new(Arc::new(server_config(certificates)?));
        Ok(Self { config, complaints: Seldom::hourly() })
    }

    /// From the next connection on, the certificates of `other` are shown.
    pub fn adopt(&self, other: &Self) {
        let config = Arc::clone(&other.config.read().unwrap_or_else(PoisonError::into_inner));
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// The server's part of a handshake; also says version and cipher.
    pub async fn accept<S>(&self, stream: S) -> io::Result<(server::TlsStream<S>, String)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner));
        let handshake = TlsAcceptor::from(config).accept(stream);
        let stream = timeout(HANDSHAKE_TIMEOUT, handshake).await??;
        let described = describe(stream.get_ref().1);
        Ok((stream, described))
    }

    /// Logs why the handshake with a client of `server` failed, once an hour for each client.
    pub fn log_failed(&self, server: &'static str, peer: Option<IpAddr>, error: &io::Error) {
        let peer = peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).to_canonical();
        if self.complaints.may_say(peer) {
            let reason = reason(error);
            tracing::info!(server, %peer, reason, "a client's TLS handshake failed");
        }
    }
}

/// What an operator makes of a failed handshake, as server.
fn reason(error: &io::Error) -> String {
    use AlertDescription as Alert;
    let library = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let text = match library {
        Some(rustls::Error::AlertReceived(alert)) => match alert {
            Alert::UnknownCA => "the client does not trust who signed our certificate (unknown CA)",
            Alert::CertificateExpired => "our certificate has expired, says the client",
            Alert::BadCertificate
            | Alert::DecryptError
            | Alert::CertificateUnknown
            | Alert::CertificateRevoked
            | Alert::UnsupportedCertificate => "the client does not take our certificate",
            Alert::ProtocolVersion => "the client speaks neither TLS 1.2 nor TLS 1.3",
            _ => return format!("the client gave up: {alert:?}"),
        },
        Some(rustls::Error::PeerIncompatible(what)) => {
            return format!("nothing in common with the client, we take TLS 1.2 and 1.3: {what:?}");
        }
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "what the client sent is no TLS: plain text to a TLS port?"
        }
        Some(other) => return other.to_string(),
        None => match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => "the client hung up",
            io::ErrorKind::TimedOut => "it took too long",
            _ => return error.to_string(),
        },
    };
    text.to_owned()
}

/// How we connect to other servers; cheap to clone.
#[derive(Clone)]
pub struct ClientTls {
    connector: TlsConnector,
}

/// Whether the certificate of a server must be valid for its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// It must.
    Yes,
    /// Encrypted, but to whom is unknown.
    No,
}

impl ClientTls {
    /// Trusts what the system trusts, or only the certificates in `ca_file`.
    pub fn new(verify: Verify, ca_file: Option<&Path>) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Library)?;
        let config = match verify {
            Verify::Yes => builder.with_root_certificates(match ca_file {
                Some(path) => roots_of(path)?,
                None => system_roots()?,
            }),
            Verify::No => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))),
        };
        Ok(Self { connector: TlsConnector::from(Arc::new(config.with_no_client_auth())) })
    }

    /// What a library takes that does the handshake itself.
    pub fn connector(&self) -> &TlsConnector {
        &self.connector
    }

    /// The client's part of a handshake with the server `host`; also says version and cipher.
    pub async fn connect<S>(
        &self,
        host: &str,
        stream: S,
    ) -> io::Result<(client::TlsStream<S>, String)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let stream = timeout(HANDSHAKE_TIMEOUT, self.connector.connect(name, stream)).await??;
        let described = describe(stream.get_ref().1);
        Ok((stream, described))
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").finish_non_exhaustive()
    }
}

/// Version and cipher for `Received` fields and logs, such as `TLSv1.3 TLS13_AES_256_GCM_SHA384`.
pub fn describe(connection: &CommonState) -> String {
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        _ => "TLS",
    };
    match connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()) {
        Some(cipher) => format!("{version} {cipher}"),
        None => version.to_owned(),
    }
}

/// Why TLS cannot be used as it is configured.
#[derive(Debug)]
pub enum TlsError {
    /// A file cannot be read, or is no PEM.
    ConfigFile {
        /// What it should hold.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A file is PEM, but what it should hold is not in it.
    ConfigFileEmpty {
        /// What it should hold.
        what: &'static str,
        /// Which.
        path: PathBuf,
    },
    /// A certificate and a key do not belong together, or cannot be used.
    ConfigPair {
        /// The certificate.
        cert_file: PathBuf,
        /// The key.
        key_file: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// There is no certificate at all.
    ConfigNoCertificate,
    /// The system trusts nobody.
    NoRoots(Option<rustls_native_certs::Error>),
    /// The library refuses.
    Library(rustls::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConfigFile { what, path, .. } => {
                write!(f, "cannot read the {what} in {}", path.display())
            }
            Self::ConfigFileEmpty { what, path } => {
                write!(f, "there is no {what} in PEM form in {}", path.display())
            }
            Self::ConfigPair { cert_file, key_file, source } => {
                let (cert, key) = (cert_file.display(), key_file.display());
                match source {
                    rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                        write!(f, "the key in {key} does not belong to the certificate in {cert}")
                    }
                    _ => write!(f, "cannot use certificate {cert} with key {key}"),
                }
            }
            Self::ConfigNoCertificate => f.write_str("no certificate is configured for TLS"),
            Self::NoRoots(_) => f.write_str(
                "the system has no trusted certificates; install ca-certificates or name a CA file",
            ),
            Self::Library(_) => f.write_str("cannot set up TLS"),
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::ConfigFile { source, .. } => Some(source),
            // What it says stands in our own words.
            Self::ConfigPair {
                source: rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch),
                ..
            } => None,
            Self::ConfigPair { source, .. } | Self::Library(source) => Some(source),
            Self::NoRoots(source) => {
                source.as_ref().map(|source| -> &(dyn std::error::Error + 'static) { source })
            }
            Self::ConfigFileEmpty { .. } | Self::ConfigNoCertificate => None,
        }
    }
}

fn server_config(certificates: &[Certificate]) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let pairs = certificates.iter().map(|pair| Pair::load(pair, &provider));
    let pairs = pairs.collect::<Result<Vec<Pair>, TlsError>>()?;
    if pairs.is_empty() {
        return Err(TlsError::ConfigNoCertificate);
    }
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Library)?;
    Ok(builder.with_no_client_auth().with_cert_resolver(Arc::new(Pairs(pairs))))
}

/// Chooses by the name that the client asks for (RFC 6066 §3).
#[derive(Debug)]
struct Pairs(Vec<Pair>);

#[derive(Debug)]
struct Pair {
    certified: Arc<CertifiedKey>,
}

impl Pair {
    fn load(pair: &Certificate, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let chain = certificates_in(&pair.cert_file)?;
        let key = PrivateKeyDer::from_pem_file(&pair.key_file)
            .map_err(|source| file_error("private key", &pair.key_file, source))?;
        let certified = CertifiedKey::from_der(chain, key, provider).map_err(|source| {
            let (cert_file, key_file) = (pair.cert_file.clone(), pair.key_file.clone());
            TlsError::ConfigPair { cert_file, key_file, source }
        })?;
        Ok(Self { certified: Arc::new(certified) })
    }

    fn is_for(&self, name: &ServerName<'_>) -> bool {
        self.certified
            .end_entity_cert()
            .and_then(ParsedCertificate::try_from)
            .is_ok_and(|certificate| verify_server_name(&certificate, name).is_ok())
    }
}

impl ResolvesServerCert for Pairs {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let named = name.and_then(|name| self.0.iter().find(|pair| pair.is_for(&name)));
        named.or_else(|| self.0.first()).map(|pair| Arc::clone(&pair.certified))
    }
}

fn certificates_in(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let what = "certificate";
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| file_error(what, path, source))?;
    if chain.is_empty() {
        return Err(TlsError::ConfigFileEmpty { what, path: path.to_owned() });
    }
    Ok(chain)
}

fn file_error(what: &'static str, path: &Path, source: pem::Error) -> TlsError {
    let path = path.to_owned();
    match source {
        pem::Error::NoItemsFound => TlsError::ConfigFileEmpty { what, path },
        source => TlsError::ConfigFile { what, path, source },
    }
}

fn roots_of(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates_in(path)? {
        roots.add(certificate).map_err(TlsError::Library)?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A certificate that the library cannot read is one that we do not trust.
    let (added, _ignored) = roots.add_parsable_certificates(found.certs);
    if added == 0 { Err(TlsError::NoRoots(found.errors.pop())) } else { Ok(roots) }
}

/// Takes any certificate, but checks that the server has its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The time for one handshake, in either direction.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    /// Files of a test, removed with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("rebound-tls-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        /// Writes a new certificate for `host` and its key.
        fn pair(&self, file: &str, host: &str) -> Certificate {
            let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
            let pair = self.named(file);
            std::fs::write(&pair.cert_file, made.cert.pem()).unwrap();
            std::fs::write(&pair.key_file, made.signing_key.serialize_pem()).unwrap();
            pair
        }

        fn named(&self, file: &str) -> Certificate {
            Certificate {
                cert_file: self.0.join(format!("{file}.crt")),
                key_file: self.0.join(format!("{file}.key")),
            }
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    /// A handshake, and one octet each way; what the two ends call it.
    async fn talk(server: &ServerTls, client: &ClientTls, host: &str) -> io::Result<String> {
        let (near, far) = duplex(65_536);
        let serve = async {
            let (mut stream, tls) = server.accept(far).await?;
            let octet = stream.read_u8().await?;
            stream.write_u8(octet + 1).await?;
            stream.flush().await?;
            Ok::<_, io::Error>(tls)
        };
        let ask = async {
            let (mut stream, tls) = client.connect(host, near).await?;
            stream.write_u8(1).await?;
            stream.flush().await?;
            assert_eq!(stream.read_u8().await?, 2);
            Ok::<_, io::Error>(tls)
        };
        let (served, asked) = tokio::join!(serve, ask);
        let (served, asked) = (served, asked?);
        assert_eq!(served?, asked);
        Ok(asked)
    }

    #[tokio::test]
    async fn the_certificate_is_chosen_by_the_name_asked_for() {
        let folder = Folder::new("sni");
        let pairs = [
            folder.pair("first", "mail.example.com"),
            folder.pair("wild", "*.example.net"),
            folder.pair("third", "third.example.com"),
        ];
        let server = ServerTls::load(&pairs).unwrap();
        for (trusted, host, fits) in [
            (0, "mail.example.com", true),
            (1, "a.example.net", true),
            (2, "third.example.com", true),
            (0, "third.example.com", false),
            (1, "a.b.example.net", false),
            (0, "unknown.example.com", false),
            (0, "192.0.2.1", false),
        ] {
            let client = ClientTls::new(Verify::Yes, Some(&pairs[trusted].cert_file)).unwrap();
            let tls = talk(&server, &client, host).await;
            assert_eq!(tls.is_ok(), fits, "{host}: {tls:?}");
        }
        let anyone = ClientTls::new(Verify::No, None).unwrap();
        for host in ["unknown.example.com", "192.0.2.1", "::1"] {
            let tls = talk(&server, &anyone, host).await.unwrap();
            assert!(tls.starts_with("TLSv1.3 TLS13_"), "{tls}");
        }
    }

    #[tokio::test]
    async fn new_certificates_are_used_and_bad_ones_are_not() {
        let folder = Folder::new("reload");
        let (old, new) = (folder.pair("old", "a.example"), folder.pair("new", "a.example"));
        let trusts = |pair: &Certificate| {
            ClientTls::new(Verify::Yes, Some(pair.cert_file.as_path())).unwrap()
        };
        let server = ServerTls::load(std::slice::from_ref(&old)).unwrap();
        talk(&server, &trusts(&old), "a.example").await.unwrap();
        server.adopt(&ServerTls::load(std::slice::from_ref(&new)).unwrap());
        talk(&server, &trusts(&new), "a.example").await.unwrap();
        talk(&server, &trusts(&old), "a.example").await.unwrap_err();
        talk(&server, &trusts(&new), "a.example").await.unwrap();
    }

    #[tokio::test]
    async fn a_failed_handshake_has_a_reason_that_can_be_acted_on() {
        let folder = Folder::new("reasons");
        let own = folder.pair("own", "a.example");
        let other = folder.named("other");
        // The name of who signed it is another, too.
        let mut params = rcgen::CertificateParams::new(["b.example".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "Somebody else");
        let signed = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        std::fs::write(&other.cert_file, signed.pem()).unwrap();
        let server = ServerTls::load(std::slice::from_ref(&own)).unwrap();
        let trusting = |pair: &Certificate| {
            ClientTls::new(Verify::Yes, Some(pair.cert_file.as_path())).unwrap()
        };
        for (client, host, want) in [
            (trusting(&other), "a.example", "unknown CA"),
            (trusting(&own), "c.example", "the client does not take our certificate"),
        ] {
            let (near, far) = duplex(65_536);
            let (refused, served) = tokio::join!(client.connect(host, near), server.accept(far));
            assert!(refused.is_err());
            let reason = reason(&served.unwrap_err());
            assert!(reason.contains(want), "{reason}");
        }
        for (sent, want) in [
            (&b"EHLO client.example\r\n"[..], "plain text to a TLS port?"),
            (b"\x16\x03", "the client hung up"),
            (OLD_HELLO, "we take TLS 1.2 and 1.3"),
        ] {
            let (mut near, far) = duplex(65_536);
            near.write_all(sent).await.unwrap();
            near.shutdown().await.unwrap();
            let reason = reason(&server.accept(far).await.unwrap_err());
            assert!(reason.contains(want), "{reason}");
        }
    }

    /// A ClientHello of TLS 1.1, with TLS_RSA_WITH_AES_128_CBC_SHA and nothing else.
    const OLD_HELLO: &[u8] = &[
        0x16, 0x03, 0x01, 0x00, 0x2D, 0x01, 0x00, 0x00, 0x29, 0x03, 0x02, 0, 1, 2, 3, 4, 5, 6, 7,
        8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30,
        31, 0x00, 0x00, 0x02, 0x00, 0x2F, 0x01, 0x00,
    ];

    #[test]
    fn every_mistake_names_its_file() {
        let folder = Folder::new("mistakes");
        let (one, two) = (folder.pair("one", "a.example"), folder.pair("two", "a.example"));
        let empty = folder.named("empty");
        std::fs::write(&empty.cert_file, "nothing").unwrap();
        std::fs::write(&empty.key_file, "nothing").unwrap();
        let with = |cert: &Certificate, key: &Certificate| Certificate {
            cert_file: cert.cert_file.clone(),
            key_file: key.key_file.clone(),
        };
        for (pair, want) in [
            (folder.named("missing"), "cannot read the certificate in"),
            (with(&one, &folder.named("missing")), "cannot read the private key in"),
            (with(&empty, &one), "there is no certificate in PEM form in"),
            (with(&one, &empty), "there is no private key in PEM form in"),
            (with(&one, &two), "does not belong to the certificate in"),
        ] {
            let error = ServerTls::load(&[pair]).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
            assert!(error.contains(&folder.0.display().to_string()), "{error}");
        }
        assert!(matches!(ServerTls::load(&[]), Err(TlsError::ConfigNoCertificate)));
        let error = ClientTls::new(Verify::Yes, Some(&empty.cert_file)).unwrap_err().to_string();
        assert!(error.contains("empty.crt"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_has_a_deadline_at_both_ends() {
        let folder = Folder::new("deadline");
        let server = ServerTls::load(&[folder.pair("one", "a.example")]).unwrap();
        let (_silent, stream) = duplex(64);
        let error = server.accept(stream).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let (_silent, stream) = duplex(65_536);
        let client = ClientTls::new(Verify::No, None).unwrap();
        let error = client.connect("a.example", stream).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}

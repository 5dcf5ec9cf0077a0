//! A HAProxy of the test's own, which passes connections on with a PROXY header.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use super::{SOON, TempDir, free_port, program, wait_for};

/// A running HAProxy.
pub(crate) struct HaProxy {
    _dir: TempDir,
    child: Child,
    ports: Vec<SocketAddr>,
}

/// One way through it.
pub(crate) struct Way<'a> {
    /// Whom the header names, as a sample of HAProxy: `src` for the client itself.
    pub(crate) client: &'a str,
    /// `send-proxy` or `send-proxy-v2`, and what else stands on the line of a server.
    pub(crate) server: &'a str,
    /// Where it leads.
    pub(crate) to: SocketAddr,
}

impl HaProxy {
    /// Starts it with these ways; each has a port of its own.
    pub(crate) fn start(ways: &[Way<'_>]) -> Self {
        let dir = TempDir::new("haproxy");
        let mut config = "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  \
                          timeout server 30s\n"
            .to_owned();
        let mut ports = Vec::new();
        for (number, way) in ways.iter().enumerate() {
            let port = SocketAddr::from(([127, 0, 0, 1], free_port()));
            config += &format!(
                "listen way{number}\n  bind {port}\n  tcp-request connection set-src {}\n  \
                 server rebound {} {}\n",
                way.client, way.to, way.server
            );
            ports.push(port);
        }
        let path = dir.file("haproxy.cfg", config);
        let child = Command::new(program("haproxy", "haproxy"))
            .args(["-db", "-q", "-f"])
            .arg(path)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut proxy = Self { _dir: dir, child, ports };
        for port in proxy.ports.clone() {
            wait_for("HAProxy listens", SOON, || {
                assert!(proxy.child.try_wait().unwrap().is_none(), "HAProxy has ended");
                TcpStream::connect(port).ok()
            });
        }
        proxy
    }

    /// Where a way begins.
    pub(crate) fn way(&self, number: usize) -> SocketAddr {
        self.ports[number]
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

//! Binding sockets. Each worker accepts from a socket of its own on the same TCP address (`SO_REUSEPORT`), so that workers
//! share no queue; a unix socket is one, shared by all.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, Socket, Type};

use super::ListenAddress;
use crate::keepalive;

/// Connections the kernel holds for us before they are accepted.
pub(crate) const BACKLOG: i32 = 4096;

/// A listening address with its sockets.
#[derive(Debug)]
pub struct Bound {
    address: ListenAddress,
    sockets: Sockets,
}

#[derive(Debug)]
enum Sockets {
    Tcp(Vec<TcpListener>),
    Unix(UnixListener, PathBuf),
}

/// A socket for one worker.
#[derive(Debug)]
pub enum WorkerSocket {
    /// TCP.
    Tcp(TcpListener),
    /// Unix.
    Unix(UnixListener),
}

impl Bound {
    /// Binds `address` for `workers` workers. Errors are the system's: address in use, not permitted, not ours.
    pub fn bind(address: &ListenAddress, workers: usize) -> io::Result<Self> {
        Self::bind_in_place_of(&[], address, workers)
    }

    /// As [`Self::bind`], where the listeners at `leaving` are ours, still open, and soon closed: `0.0.0.0:80` can take the
    /// place of `127.0.0.1:80`, and no client meets a closed port in between.
    pub fn bind_in_place_of(leaving: &[ListenAddress], address: &ListenAddress, workers: usize) -> io::Result<Self> {
        match address {
            ListenAddress::Tcp(address) => bind_tcp(*address, leaving, workers.max(1)),
            ListenAddress::Unix(path) => {
                let socket = bind_unix(path)?;
                Ok(Self { address: address.clone(), sockets: Sockets::Unix(socket, path.clone()) })
            }
        }
    }

    /// The address, with the port that the system chose.
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// The socket of worker `index`, a copy that lives on its own.
    pub fn socket(&self, index: usize) -> io::Result<WorkerSocket> {
        match &self.sockets {
            Sockets::Tcp(sockets) => {
                let socket = sockets.get(index % sockets.len().max(1)).ok_or(io::ErrorKind::NotFound)?;
                socket.try_clone().map(WorkerSocket::Tcp)
            }
            Sockets::Unix(socket, _) => socket.try_clone().map(WorkerSocket::Unix),
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Sockets::Unix(_, path) = &self.sockets {
            // The file is ours; leaving it would only make the next start look for a living owner.
            let _ = fs::remove_file(path);
        }
    }
}

fn bind_tcp(address: SocketAddr, leaving: &[ListenAddress], workers: usize) -> io::Result<Bound> {
    let shares_port =
        |other: &ListenAddress| matches!(other, ListenAddress::Tcp(other) if other.port() == address.port());
    if address.port() != 0 && !leaving.iter().any(shares_port) {
        // With SO_REUSEPORT a second gate would share the port in silence; a plain bind tells that it is taken. Where a
        // listener of ours is in the way it could tell nothing.
        drop(tcp_socket(address, false)?);
    }
    let first = tcp_socket(address, true)?;
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(tcp_socket(address, true)?);
    }
    Ok(Bound { address: ListenAddress::Tcp(address), sockets: Sockets::Tcp(sockets) })
}

fn tcp_socket(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    // Connections inherit it from the socket that accepts them, which saves each of them the system calls.
    keepalive::set(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Binds a unix socket of mode 0660 (decision 25). A file left by a gate that is gone is replaced; one that is still served,
/// or is no socket, is an error.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if let Ok(found) = fs::symlink_metadata(path) {
        if !found.file_type().is_socket() || UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    // Nobody can connect before listen(), so there is no moment with a wider mode.
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_zero_is_told_and_shared_by_all_workers() {
        let bound = Bound::bind(&ListenAddress::Tcp(([127, 0, 0, 1], 0).into()), 3).expect("binds");
        let ListenAddress::Tcp(address) = bound.address() else { unreachable!("tcp") };
        assert_ne!(address.port(), 0);
        for index in 0..3 {
            let WorkerSocket::Tcp(socket) = bound.socket(index).expect("a socket") else { unreachable!("tcp") };
            assert_eq!(socket.local_addr().expect("bound"), *address);
        }
    }

    #[test]
    fn a_taken_address_is_an_error() {
        let first = Bound::bind(&ListenAddress::Tcp(([127, 0, 0, 1], 0).into()), 2).expect("binds");
        let second = Bound::bind(first.address(), 2);
        assert_eq!(second.expect_err("taken").kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_unix_socket_is_for_owner_and_group_and_a_dead_one_is_replaced() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("gate.sock");
        let address = ListenAddress::Unix(path.clone());
        let bound = Bound::bind(&address, 2).expect("binds");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o660);
        assert_eq!(Bound::bind(&address, 1).expect_err("served").kind(), io::ErrorKind::AddrInUse);
        drop(bound);
        assert!(!path.exists());
        drop(UnixListener::bind(&path).expect("left behind"));
        assert!(path.exists() && Bound::bind(&address, 1).is_ok());
        fs::write(&path, "a file").expect("writes");
        assert!(Bound::bind(&address, 1).is_err());
        assert_eq!(fs::read(&path).expect("kept"), b"a file");
    }
}

//! One text, then the end.

use smoltcp::socket::tcp;

/// A text on its way.
#[derive(Debug)]
pub(super) struct Saying {
    text: Vec<u8>,
    said: usize,
}

impl Saying {
    pub(super) const fn new(text: Vec<u8>) -> Self {
        Self { text, said: 0 }
    }

    /// Says as much as there is room for, and closes the connection (our half of it) after the last.
    pub(super) fn go_on(&mut self, socket: &mut tcp::Socket<'_>) {
        let rest = self.text.get(self.said..).unwrap_or_default();
        self.said += socket.send_slice(rest).unwrap_or(0);
        if self.said >= self.text.len() {
            socket.close();
        }
    }
}

/// Takes what the client says and forgets it: what is left unread would stop its sending, and so
/// the orderly end of the connection.
pub(super) fn ignore(socket: &mut tcp::Socket<'_>) {
    while socket.recv(|octets| (octets.len(), octets.len())).is_ok_and(|taken| taken > 0) {}
}

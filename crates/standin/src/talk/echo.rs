//! The echo protocol (RFC 862).

use smoltcp::socket::tcp;

/// Sends back what was heard, as much as there is room for, and closes after the client has. Was
/// anything sent?
pub(super) fn go_on(socket: &mut tcp::Socket<'_>) -> bool {
    let mut octets = [0; 512];
    let mut any = false;
    while socket.can_recv() && socket.can_send() {
        let room = socket.send_capacity().saturating_sub(socket.send_queue()).min(octets.len());
        let (octets, _) = octets.split_at_mut(room);
        let heard = socket.recv_slice(octets).unwrap_or(0);
        let (octets, _) = octets.split_at(heard);
        // There is room for all of them.
        any |= socket.send_slice(octets).is_ok_and(|sent| sent > 0);
        if heard == 0 {
            break;
        }
    }
    if !socket.may_recv() {
        socket.close();
    }
    any
}

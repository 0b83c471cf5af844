//! What the guest says it has received, and whether its memory is what it was.

use crate::{Client, Error, Result};
use serde::Deserialize;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

pub(crate) const SINK_PORT: u16 = 7777;
const STATS_PORT: u16 = 7778;
const MEMORY_PORT: u16 = 7779;
const TIMEOUT: Duration = Duration::from_secs(60);

/// The guest's account of the numbered datagrams it got, and facts about itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SinkStats {
    /// All datagrams.
    pub datagrams: u64,
    /// Different numbers.
    pub received: u64,
    /// Numbers missing below the highest. Those missing above it only the sender can know.
    pub lost: u64,
    /// Numbers that came again.
    pub duplicates: u64,
    /// Numbers that came after a higher one.
    pub reordered: u64,
    /// Datagrams without a number.
    pub malformed: u64,
    /// The highest number.
    pub highest: u64,
    /// Datagrams that the guest's own kernel dropped since boot because its program was slow.
    pub rcvbuf_errors: u64,
    /// The guest's monotonic clock, in milliseconds.
    pub uptime_ms: u64,
    /// The guest's wall clock, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Differs after every boot, stays the same through every sleep.
    pub boot_id: String,
}

impl SinkStats {
    /// Did all of `sent` arrive, once and in order?
    #[must_use]
    pub const fn is_whole(&self, sent: u64) -> bool {
        self.received == sent && self.lost == 0 && self.duplicates == 0 && self.reordered == 0
    }
}

/// The guest's verdict on the memory it filled at boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryCheck {
    /// Pages that it filled.
    pub pages: u64,
    /// Pages that no longer hold what they must.
    pub bad: u64,
}

pub(crate) fn stats(client: &Client, ip: IpAddr) -> Result<SinkStats> {
    read_stats(&mut BufReader::new(connect(client, ip, STATS_PORT)?))
}

pub(crate) fn reset(client: &Client, ip: IpAddr) -> Result<()> {
    let stream = connect(client, ip, STATS_PORT)?;
    let mut reader = BufReader::new(&stream);
    read_stats(&mut reader)?;
    (&stream).write_all(b"reset\n").map_err(Error::net("reset the sink"))?;
    read_stats(&mut reader).map(drop)
}

pub(crate) fn verify_memory(client: &Client, ip: IpAddr) -> Result<MemoryCheck> {
    let mut text = String::new();
    let mut stream = connect(client, ip, MEMORY_PORT)?;
    stream.read_to_string(&mut text).map_err(Error::net("read the guest's verdict on its memory"))?;
    parse_check(&text).ok_or(Error::Answer { from: "the guest's memory check".into(), answer: text })
}

fn connect(client: &Client, ip: IpAddr, port: u16) -> Result<TcpStream> {
    let stream = client.tcp_connect(SocketAddr::new(ip, port), TIMEOUT)?.stream;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(Error::net("set a timeout"))?;
    Ok(stream)
}

fn read_stats(from: &mut impl BufRead) -> Result<SinkStats> {
    let mut line = String::new();
    from.read_line(&mut line).map_err(Error::net("read the sink's account"))?;
    serde_json::from_str(&line).map_err(|_| Error::Answer { from: "the sink".into(), answer: line })
}

/// `ok PAGES` or `bad BAD/PAGES`.
fn parse_check(text: &str) -> Option<MemoryCheck> {
    match text.trim().split_once(' ')? {
        ("ok", pages) => Some(MemoryCheck { pages: pages.parse().ok()?, bad: 0 }),
        ("bad", counts) => {
            let (bad, pages) = counts.split_once('/')?;
            Some(MemoryCheck { pages: pages.parse().ok()?, bad: bad.parse().ok()? })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_memory_check() {
        assert_eq!(parse_check("ok 12\n"), Some(MemoryCheck { pages: 12, bad: 0 }));
        assert_eq!(parse_check("bad 3/12\n"), Some(MemoryCheck { pages: 12, bad: 3 }));
        assert_eq!(parse_check(""), None);
    }
}

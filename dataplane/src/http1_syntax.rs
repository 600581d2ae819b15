//! Refuses messages that hyper accepts but other servers may read differently (RFC 9112): checks the bytes of a
//! connection before hyper gets them, and changes none.
//!
//! * Lines of heads, chunks and trailers end with CRLF.
//! * There is at most one Content-Length, of digits, or one Transfer-Encoding, which is `chunked`; never both.
//! * A field is a name, a colon and a value without control characters, on one line.
//! * Heads and trailers keep the limits on bytes and fields.

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Most bytes of the line before a chunk, with its extensions.
const CHUNK_LINE: usize = 4096;

/// A refused request: the status, and the text for the client.
#[derive(Clone, Copy)]
pub struct Refusal(pub u16, pub &'static str);

impl Refusal {
    /// The response to the client; the connection is closed after it.
    pub fn response(&self) -> Vec<u8> {
        let Refusal(status, why) = self;
        let reason =
            http::StatusCode::from_u16(*status).ok().and_then(|status| status.canonical_reason()).unwrap_or("");
        let fields = format!("content-type: text/plain\r\ncontent-length: {}\r\nconnection: close", why.len() + 1);
        format!("HTTP/1.1 {status} {reason}\r\n{fields}\r\n\r\n{why}\n").into_bytes()
    }
}

enum At {
    /// The first bytes of the connection.
    Start,
    Head,
    /// In a body, this many bytes before its end.
    Sized(u64),
    ChunkLine,
    Chunk(u64),
    /// After a chunk: its CRLF.
    ChunkEnd,
    Trailers,
    /// What follows is not HTTP/1.
    Free,
}

pub struct Http1Syntax {
    at: At,
    /// Most bytes of a section, and most fields in it.
    limit: usize,
    fields: usize,
    /// The part of a head, chunk line or trailers that has arrived.
    seen: Vec<u8>,
    /// Number of its lines.
    count: usize,
    /// The first line of the last head, truncated.
    pub line: String,
}

impl Http1Syntax {
    pub fn new(limit: usize, fields: usize) -> Http1Syntax {
        Http1Syntax { at: At::Start, limit, fields, seen: Vec::new(), count: 0, line: String::new() }
    }

    /// Stop checking: the connection has left HTTP/1.
    pub fn free(&mut self) {
        self.at = At::Free;
    }

    /// Number of bytes that have arrived of an incomplete head.
    pub fn head_bytes(&self) -> usize {
        if matches!(self.at, At::Start | At::Head) { self.seen.len() } else { 0 }
    }

    /// Whether the next bytes belong to the body of a request.
    pub fn in_body(&self) -> bool {
        !matches!(self.at, At::Start | At::Head | At::Free)
    }

    /// Check bytes that have arrived. Returns how many of them may pass, and, if others may not, why.
    pub fn look(&mut self, data: &[u8]) -> (usize, Option<Refusal>) {
        let mut at = 0;
        while at < data.len() {
            match self.step(&data[at..]) {
                Ok(taken) => at += taken,
                Err(refusal) => {
                    if self.line.is_empty() {
                        self.line = first_line(&self.seen);
                    }
                    return (at, Some(refusal));
                }
            }
        }
        (at, None)
    }

    fn step(&mut self, data: &[u8]) -> Result<usize, Refusal> {
        match self.at {
            At::Free => Ok(data.len()),
            At::Start => {
                let together = [&self.seen[..], data].concat();
                if together.starts_with(PREFACE) {
                    self.at = At::Free;
                } else if PREFACE.starts_with(&together) {
                    self.seen = together;
                    return Ok(data.len());
                } else {
                    self.at = At::Head;
                    let before = std::mem::take(&mut self.seen);
                    if !before.is_empty() {
                        self.step(&before)?;
                    }
                }
                self.step(data)
            }
            At::Head => {
                if self.seen.is_empty() && data[0] == b'\r' {
                    // RFC 9112, section 2.2: ignore an empty line before a request
                    return match data.get(1) {
                        Some(b'\n') => Ok(2),
                        None => Ok(1),
                        Some(_) => Err(Refusal(400, "a line does not end with CRLF")),
                    };
                }
                if self.seen.is_empty() && data[0] == b'\n' {
                    return Ok(1); // the end of that empty line
                }
                if self.seen.is_empty() && !is_token(&data[..1]) {
                    return Err(Refusal(400, "this is no request line"));
                }
                let taken = self.section(data)?;
                if let Some(head) = self.whole() {
                    self.at = self.framing(&head)?;
                }
                Ok(taken)
            }
            At::Sized(left) => {
                let taken = (data.len() as u64).min(left);
                self.at = if taken == left { At::Head } else { At::Sized(left - taken) };
                Ok(taken as usize)
            }
            At::ChunkLine => {
                let end = data.iter().position(|byte| *byte == b'\n').map_or(data.len(), |at| at + 1);
                self.seen.extend_from_slice(&data[..end]);
                if self.seen.len() > CHUNK_LINE {
                    return Err(Refusal(400, "the line before a chunk has no end"));
                }
                if self.seen.ends_with(b"\n") {
                    let line = std::mem::take(&mut self.seen);
                    let size = chunk_size(&line).ok_or(Refusal(400, "the size of a chunk is malformed"))?;
                    self.at = if size > 0 { At::Chunk(size) } else { At::Trailers };
                }
                Ok(end)
            }
            At::Chunk(left) => {
                let taken = (data.len() as u64).min(left);
                self.at = if taken == left { At::ChunkEnd } else { At::Chunk(left - taken) };
                Ok(taken as usize)
            }
            At::ChunkEnd => {
                self.seen.push(data[0]);
                if !b"\r\n".starts_with(&self.seen) {
                    return Err(Refusal(400, "a chunk is longer than its size"));
                }
                if self.seen.len() == 2 {
                    self.seen.clear();
                    self.at = At::ChunkLine;
                }
                Ok(1)
            }
            At::Trailers => {
                let taken = self.section(data)?;
                if let Some(section) = self.whole() {
                    self.check(lines(&section))?;
                    self.at = At::Head;
                }
                Ok(taken)
            }
        }
    }

    /// Read lines up to and including an empty one.
    fn section(&mut self, data: &[u8]) -> Result<usize, Refusal> {
        for (at, byte) in data.iter().enumerate() {
            if *byte != b'\n' {
                continue;
            }
            let before = if at > 0 { Some(data[at - 1]) } else { self.seen.last().copied() };
            if before != Some(b'\r') {
                return Err(Refusal(400, "a line does not end with CRLF"));
            }
            self.count += 1;
            if self.count == 1 && matches!(self.at, At::Head) {
                let line = [&self.seen[..], &data[..at]].concat();
                self.line = first_line(&line);
                request_line(&line)?;
            }
            if self.count > self.fields + 2 {
                return Err(Refusal(431, "there are too many headers"));
            }
            let empty = match at {
                1 => self.seen.is_empty() || self.seen.ends_with(b"\n"),
                0 => self.seen.len() == 1 || self.seen.ends_with(b"\n\r"),
                _ => data[at - 2] == b'\n',
            };
            if empty {
                self.seen.extend_from_slice(&data[..=at]);
                self.count = 0;
                return self.within().map(|()| at + 1);
            }
        }
        self.seen.extend_from_slice(data);
        self.within().map(|()| data.len())
    }

    fn within(&self) -> Result<(), Refusal> {
        match () {
            () if self.seen.len() <= self.limit => Ok(()),
            () if matches!(self.at, At::Head) && !self.seen.contains(&b'\n') => {
                Err(Refusal(414, "the request line is too long"))
            }
            () => Err(Refusal(431, "the headers are too large")),
        }
    }

    /// Take a section that is complete.
    fn whole(&mut self) -> Option<Vec<u8>> {
        (self.seen.ends_with(b"\r\n\r\n") || self.seen == b"\r\n").then(|| std::mem::take(&mut self.seen))
    }

    fn check<'a>(&self, fields: impl Iterator<Item = &'a [u8]>) -> Result<(), Refusal> {
        let mut count = 0;
        for line in fields {
            let (name, value) = field(line);
            if !is_token(name) || value.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
                return Err(Refusal(400, "a header is malformed"));
            }
            count += 1;
        }
        if count > self.fields { Err(Refusal(431, "there are too many headers")) } else { Ok(()) }
    }

    fn framing(&mut self, head: &[u8]) -> Result<At, Refusal> {
        let mut fields = lines(head);
        let first = fields.next().unwrap_or_default();
        self.check(fields.clone())?;
        let mut length: Option<u64> = None;
        let mut chunked = false;
        for line in fields {
            let (name, value) = field(line);
            if name.eq_ignore_ascii_case(b"content-length") {
                if length.is_some() || value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
                    return Err(Refusal(400, "the Content-Length is invalid"));
                }
                length = Some(value.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')));
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    let last = value.rsplit(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
                    let status = if last.eq_ignore_ascii_case(b"chunked") { 501 } else { 400 };
                    return Err(Refusal(status, "the only transfer coding known here is chunked"));
                }
                chunked = true;
            }
        }
        match length {
            Some(_) if chunked => Err(Refusal(400, "Transfer-Encoding beside Content-Length")),
            _ if chunked && first.ends_with(b"HTTP/1.0") => Err(Refusal(400, "Transfer-Encoding beside HTTP/1.0")),
            _ if chunked => Ok(At::ChunkLine),
            None | Some(0) => Ok(At::Head),
            Some(length) => Ok(At::Sized(length)),
        }
    }
}

/// The lines of a section, without the empty one at its end.
fn lines(section: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    section
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.is_empty())
}

fn first_line(seen: &[u8]) -> String {
    let line = lines(seen).next().unwrap_or_default();
    String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned()
}

/// Name and value of a field; the name is empty if there is no colon.
fn field(line: &[u8]) -> (&[u8], &[u8]) {
    line.iter().position(|byte| *byte == b':').map_or((&b""[..], line), |at| (&line[..at], line[at + 1..].trim_ascii()))
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+.^_`|~-".contains(byte))
}

/// Check a request line.
fn request_line(line: &[u8]) -> Result<(), Refusal> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut words = line.split(|byte| *byte == b' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(method), Some(target), Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None)
            if is_token(method)
                && !target.is_empty()
                && target.iter().all(|byte| *byte > b' ' && *byte != 0x7f && *byte != b'#')
                && major.is_ascii_digit()
                && minor.is_ascii_digit() =>
        {
            if *major == b'1' {
                Ok(())
            } else {
                Err(Refusal(505, "only HTTP/1.1 and HTTP/1.0 are spoken here"))
            }
        }
        _ => Err(Refusal(400, "this is no request line")),
    }
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let line = line.strip_suffix(b"\r\n")?;
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let rest = line[digits..].trim_ascii_start();
    let right = rest.is_empty() && digits == line.len() || rest.starts_with(b";");
    if !(1..=16).contains(&digits) || !right || rest.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(&line[..digits]).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(bytes: &[u8]) -> Option<u16> {
        let whole = Http1Syntax::new(1000, 10).look(bytes).1.map(|refusal| refusal.0);
        for at in 0..bytes.len() {
            let mut syntax = Http1Syntax::new(1000, 10);
            let cut = syntax.look(&bytes[..at]).1.or_else(|| syntax.look(&bytes[at..]).1).map(|refusal| refusal.0);
            assert_eq!(cut, whole, "cut at {at} of {:?}", String::from_utf8_lossy(bytes));
        }
        whole
    }

    #[test]
    fn what_passes() {
        for bytes in [
            &b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"\r\nPOST / HTTP/1.1\r\nContent-Length: 3\r\n\r\na\nbGET / HTTP/1.1\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\na\nb\r\n0\r\nX: 1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\n\n\n",
        ] {
            assert_eq!(ask(bytes), None, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn what_does_not() {
        for (bytes, status) in [
            (&b"GET / HTTP/1.1\nHost: a\r\n\r\n"[..], 400),
            (b"GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
            (b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\nHost: a\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
            (b"GET / HTTP/2.0\r\n\r\n", 505),
            (b"GET  / HTTP/1.1\r\n\r\n", 400),
            (b"GET /#x HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nX : 1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nX: 1\r\n folded\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nX: a\0b\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n: 1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nX\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
            (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n", 400),
            (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n", 400),
            (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n", 400),
            (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n", 400),
        ] {
            assert_eq!(ask(bytes), Some(status), "{:?}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(ask(&[&b"GET / HTTP/1.1\r\nX: "[..], &[b'a'; 1000]].concat()), Some(431));
        assert_eq!(ask(&[&b"GET / HTTP/1.1\r\n"[..], &b"X: 1\r\n".repeat(11), b"\r\n"].concat()), Some(431));
        let trailers = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
        assert_eq!(ask(&[&trailers[..], &b"X: 1\r\n".repeat(11), b"\r\n"].concat()), Some(431));
        assert_eq!(ask(&[b'a'; 1001]), Some(414));
    }
}

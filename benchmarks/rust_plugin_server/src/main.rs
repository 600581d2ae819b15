//! A plugin server with Kong's protocol ProtoBuf:1, a stand-in for Kong's PDK for Go. It does only the work of the
//! benchmarks, so that a server with a real PDK cannot be faster.
//!
//! A frame is a size (32 bits, little endian) and as many bytes. Kong sends a call. The server answers an event with
//! pairs of frames, the name and the argument of a PDK function, and Kong answers each pair with a frame for the
//! result. At the end the server sends an empty frame, and the return value.
use std::io::{Read, Result, Write};
use std::os::unix::net::{UnixListener, UnixStream};

const START_INSTANCE: u64 = 33;
const HANDLE_EVENT: u64 = 36;
const INSTANCE_STATUS: u64 = 33;

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes_field(number: u64, value: &[u8], out: &mut Vec<u8>) {
    varint(number << 3 | 2, out);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn number_field(number: u64, value: u64, out: &mut Vec<u8>) {
    varint(number << 3, out);
    varint(value, out);
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn read_varint(data: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = data[0];
        *data = &data[1..];
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return value;
        }
    }
}

/// The fields of a message that contains only varints and length-delimited values.
fn fields(mut data: &[u8]) -> Vec<(u64, Value<'_>)> {
    let mut found = Vec::new();
    while !data.is_empty() {
        let key = read_varint(&mut data);
        let value = read_varint(&mut data);
        if key & 7 == 2 {
            let (bytes, rest) = data.split_at(value as usize);
            found.push((key >> 3, Value::Bytes(bytes)));
            data = rest;
        } else {
            found.push((key >> 3, Value::Number(value)));
        }
    }
    found
}

struct Connection {
    stream: UnixStream,
    out: Vec<u8>,
    frame: Vec<u8>,
}

impl Connection {
    /// Add a frame to the pending output.
    fn put(&mut self, data: &[u8]) {
        self.out.extend_from_slice(&(data.len() as u32).to_le_bytes());
        self.out.extend_from_slice(data);
    }

    fn send(&mut self) -> Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    fn receive(&mut self) -> Result<()> {
        let mut size = [0; 4];
        self.stream.read_exact(&mut size)?;
        self.frame.resize(u32::from_le_bytes(size) as usize, 0);
        self.stream.read_exact(&mut self.frame)
    }

    fn call(&mut self, method: &str, argument: &[u8]) -> Result<()> {
        self.put(method.as_bytes());
        self.put(argument);
        self.send()?;
        self.receive()
    }

    fn access(&mut self) -> Result<()> {
        self.call("kong.request.get_path", b"")?;
        self.call("kong.request.get_header", &text("user-agent"))?;
        self.call("kong.service.request.add_header", &pair("x-wasm", "hello"))?;
        self.call("kong.service.request.clear_header", &text("x-remove-me"))
    }

    fn response(&mut self) -> Result<()> {
        self.call("kong.service.response.get_header", &text("server"))?;
        self.call("kong.response.add_header", &pair("x-wasm", "hello"))?;
        self.call("kong.response.set_header", &pair("server", "hello"))
    }

    /// Answer calls until Kong closes the connection.
    fn serve(&mut self) -> Result<()> {
        loop {
            self.receive()?;
            let call = std::mem::take(&mut self.frame);
            let mut answer = Vec::new();
            for (number, value) in fields(&call) {
                match (number, value) {
                    (1, Value::Number(sequence)) => number_field(1, sequence, &mut answer),
                    (START_INSTANCE, Value::Bytes(_)) => {
                        let mut status = Vec::new();
                        number_field(2, 1, &mut status);
                        bytes_field(INSTANCE_STATUS, &status, &mut answer);
                    }
                    (HANDLE_EVENT, Value::Bytes(event)) => {
                        for (number, value) in fields(event) {
                            match (number, value) {
                                (2, Value::Bytes(b"access")) => self.access()?,
                                (2, Value::Bytes(b"response")) => self.response()?,
                                _ => {}
                            }
                        }
                        self.put(b"");
                    }
                    _ => {}
                }
            }
            self.put(&answer);
            self.send()?;
        }
    }
}

/// The message `String`.
fn text(value: &str) -> Vec<u8> {
    let mut out = Vec::new();
    bytes_field(1, value.as_bytes(), &mut out);
    out
}

/// The message `KV` with a string in its `Value`.
fn pair(key: &str, value: &str) -> Vec<u8> {
    let (mut inner, mut out) = (Vec::new(), Vec::new());
    bytes_field(3, value.as_bytes(), &mut inner);
    bytes_field(1, key.as_bytes(), &mut out);
    bytes_field(2, &inner, &mut out);
    out
}

fn main() -> Result<()> {
    let path = std::env::args().nth(1).expect("the path of a socket");
    for stream in UnixListener::bind(path)?.incoming() {
        let stream = stream?;
        std::thread::spawn(|| Connection { stream, out: Vec::new(), frame: Vec::new() }.serve());
    }
    Ok(())
}

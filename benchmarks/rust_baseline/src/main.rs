//! The baseline: the header filter in a Rust embedding of Wasmtime, without Python.
//!
//! It is as bare as possible: no status checks, no contexts, no limits. `contenders/line_protocol.py` controls it.
use std::io::{BufRead, Write};
use wasmtime::*;

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

const CLOCK_THREAD_CPUTIME_ID: i32 = 3;

unsafe extern "C" {
    fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
}

/// Processor time of this thread.
fn nanoseconds() -> i64 {
    let mut now = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: the call only writes to `now`, which has the layout of 64-bit Linux.
    unsafe { clock_gettime(CLOCK_THREAD_CPUTIME_ID, &mut now) };
    now.seconds * 1_000_000_000 + now.nanoseconds
}

type HeaderMap = Vec<(Vec<u8>, Vec<u8>)>;

const REQUEST: [(&str, &str); 5] =
    [(":path", "/"), (":method", "GET"), (":authority", "localhost"), ("user-agent", "curl/8"), ("accept", "*/*")];
const RESPONSE: [(&str, &str); 3] = [(":status", "200"), ("server", "x"), ("content-type", "text/plain")];

/// `maps` by the ABI's numbers: 0 is for the request, 2 for the response.
struct Host {
    maps: [HeaderMap; 3],
    allocate: Option<TypedFunc<i32, i32>>,
    memory: Option<Memory>,
}

fn bytes<'a>(caller: &'a Caller<'_, Host>, at: i32, size: i32) -> &'a [u8] {
    &caller.data().memory.unwrap().data(caller)[at as usize..(at + size) as usize]
}

fn get(
    mut caller: Caller<'_, Host>,
    kind: i32,
    key: i32,
    key_size: i32,
    value_slot: i32,
    size_slot: i32,
) -> Result<i32> {
    let name = bytes(&caller, key, key_size);
    let value = match caller.data().maps[kind as usize].iter().find(|pair| pair.0 == name) {
        Some(pair) => pair.1.clone(),
        None => return Ok(1),
    };
    let allocate = caller.data().allocate.clone().unwrap();
    let at = allocate.call(&mut caller, value.len() as i32)? as usize;
    let memory = caller.data().memory.unwrap().data_mut(&mut caller);
    memory[at..at + value.len()].copy_from_slice(&value);
    memory[value_slot as usize..][..4].copy_from_slice(&(at as u32).to_le_bytes());
    memory[size_slot as usize..][..4].copy_from_slice(&(value.len() as u32).to_le_bytes());
    Ok(0)
}

fn add(mut caller: Caller<'_, Host>, kind: i32, key: i32, key_size: i32, value: i32, value_size: i32) -> i32 {
    let pair = (bytes(&caller, key, key_size).to_vec(), bytes(&caller, value, value_size).to_vec());
    caller.data_mut().maps[kind as usize].push(pair);
    0
}

fn remove(mut caller: Caller<'_, Host>, kind: i32, key: i32, key_size: i32) -> i32 {
    let name = bytes(&caller, key, key_size).to_vec();
    caller.data_mut().maps[kind as usize].retain(|pair| pair.0 != name);
    0
}

fn replace(mut caller: Caller<'_, Host>, kind: i32, key: i32, key_size: i32, value: i32, value_size: i32) -> i32 {
    let (name, new) = (bytes(&caller, key, key_size).to_vec(), bytes(&caller, value, value_size).to_vec());
    let map = &mut caller.data_mut().maps[kind as usize];
    match map.iter_mut().find(|pair| pair.0 == name) {
        Some(pair) => pair.1 = new,
        None => map.push((name, new)),
    }
    0
}

fn map(pairs: &[(&str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

struct Filter {
    store: Store<Host>,
    create: TypedFunc<(i32, i32), ()>,
    request: TypedFunc<(i32, i32, i32), i32>,
    response: TypedFunc<(i32, i32, i32), i32>,
    done: TypedFunc<i32, i32>,
    log: TypedFunc<i32, ()>,
    delete: TypedFunc<i32, ()>,
}

impl Filter {
    fn load(path: &str) -> Result<Self> {
        let engine = Engine::default();
        let module = Module::from_file(&engine, path)?;
        let mut linker = Linker::new(&engine);
        linker.func_wrap("env", "proxy_get_header_map_value", get)?;
        linker.func_wrap("env", "proxy_add_header_map_value", add)?;
        linker.func_wrap("env", "proxy_replace_header_map_value", replace)?;
        linker.func_wrap("env", "proxy_remove_header_map_value", remove)?;
        let mut store = Store::new(&engine, Host { maps: Default::default(), allocate: None, memory: None });
        let guest = linker.instantiate(&mut store, &module)?;
        store.data_mut().memory = guest.get_memory(&mut store, "memory");
        store.data_mut().allocate = Some(guest.get_typed_func(&mut store, "proxy_on_memory_allocate")?);
        Ok(Self {
            create: guest.get_typed_func(&mut store, "proxy_on_context_create")?,
            request: guest.get_typed_func(&mut store, "proxy_on_request_headers")?,
            response: guest.get_typed_func(&mut store, "proxy_on_response_headers")?,
            done: guest.get_typed_func(&mut store, "proxy_on_done")?,
            log: guest.get_typed_func(&mut store, "proxy_on_log")?,
            delete: guest.get_typed_func(&mut store, "proxy_on_delete")?,
            store,
        })
    }

    fn one_request(&mut self) -> Result<()> {
        let store = &mut self.store;
        store.data_mut().maps[0] = map(&REQUEST);
        store.data_mut().maps[2] = map(&RESPONSE);
        self.create.call(&mut *store, (2, 1))?;
        self.request.call(&mut *store, (2, REQUEST.len() as i32, 1))?;
        self.response.call(&mut *store, (2, RESPONSE.len() as i32, 1))?;
        self.done.call(&mut *store, 2)?;
        self.log.call(&mut *store, 2)?;
        self.delete.call(&mut *store, 2)
    }

    fn show(&mut self) -> Result<String> {
        self.one_request()?;
        let mut text = String::new();
        for (which, kind) in [("request", 0), ("response", 2)] {
            for (name, value) in &self.store.data().maps[kind] {
                text += &format!("{which} {}: {}\n", String::from_utf8_lossy(name), String::from_utf8_lossy(value));
            }
        }
        Ok(text)
    }
}

fn main() -> Result<()> {
    let mut filter = Filter::load(&std::env::args().nth(1).expect("the path of the module"))?;
    let mut output = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if line == "show" {
            writeln!(output, "{}", filter.show()?)?;
        } else {
            let times: u64 = line.parse()?;
            let started = nanoseconds();
            for _ in 0..times {
                filter.one_request()?;
            }
            writeln!(output, "{}", nanoseconds() - started)?;
        }
        output.flush()?;
    }
    Ok(())
}

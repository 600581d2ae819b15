//! Chooses the route of a request: the first one that fits, in the order of the configuration.

use crate::balance::AllKnown;
use crate::config;
use crate::head::{Head, host_of};
use crate::retry::Policy;
use crate::upstream::{Upstream, UpstreamError};
use http::header::{HeaderName, HeaderValue};
use regex::Regex;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub struct Route {
    pub name: Option<Arc<str>>,
    pub virtual_host: Option<Arc<str>>,
    /// Number of its chain of filters, if it has one.
    pub chain: Option<usize>,
    pub timeout: Option<Duration>,
    pub retry: Option<Policy>,
    hosts: Vec<String>,
    path: Path,
    methods: Vec<String>,
    headers: Vec<(HeaderName, String)>,
    target: Target,
    prefix_rewrite: Option<String>,
    host_rewrite: Option<HeaderValue>,
}

enum Path {
    Any,
    Exact(String),
    Prefix(String),
    Regex(Regex),
}

enum Target {
    Upstream(Arc<Upstream>),
    /// The header that names the upstream, and whether to remove it.
    Header(HeaderName, bool),
    /// Each with its share, added to those before it.
    Weighted(Vec<(u64, Arc<Upstream>)>),
    Redirect(config::Redirect),
    Direct(config::DirectResponse),
}

pub type Upstreams = BTreeMap<String, Arc<Upstream>>;

/// All routes, which Envoy calls a route configuration.
pub struct Routes {
    all: Vec<Route>,
    upstreams: Upstreams,
    others: Option<Others>,
}

/// Upstreams that are created when a header first names their URL.
struct Others {
    settings: config::Upstream,
    made: Mutex<HashMap<String, Arc<Upstream>>>,
}

/// Most of them that are kept: filters and plugins must not fill the memory.
const MAX_OTHERS: usize = 256;

impl Others {
    fn get(&self, url: &str) -> Option<Arc<Upstream>> {
        let mut made = self.made.lock().unwrap();
        if let Some(upstream) = made.get(url) {
            return Some(upstream.clone());
        }
        if made.len() >= MAX_OTHERS {
            made.clear();
        }
        let servers = vec![config::Server { url: url.to_owned(), weight: 1 }];
        let settings = config::Upstream { servers, ..self.settings.clone() };
        let upstream = Upstream::new("other", settings, &mut AllKnown::new(), Arc::default()).ok()?;
        Some(made.entry(url.to_owned()).or_insert(Arc::new(upstream)).clone())
    }
}

impl Routes {
    pub fn new(
        routes: Vec<config::Route>,
        upstreams: Upstreams,
        others: Option<config::Upstream>,
    ) -> Result<Routes, String> {
        let all = routes.into_iter().map(|route| Route::new(route, &upstreams)).collect::<Result<_, _>>()?;
        let others = others.map(|settings| Others { settings, made: Mutex::default() });
        Ok(Routes { all, upstreams, others })
    }

    /// The first route that fits. Once a virtual host has the request's host, routes of others do not count, as in
    /// Envoy.
    pub fn choose(&self, head: &Head) -> Option<&Route> {
        let mut virtual_host = None;
        self.all.iter().find(|route| {
            if !route.is_for_host(head) {
                return false;
            }
            if virtual_host.is_none() {
                virtual_host = route.virtual_host.as_ref();
            }
            (virtual_host.is_none() || virtual_host == route.virtual_host.as_ref()) && route.fits(head)
        })
    }

    /// The upstream of a route; `None` if it has none, or its header names none. `drawn`, a random number, chooses
    /// among several.
    pub fn upstream(&self, route: &Route, head: &Head, drawn: u64) -> Option<Arc<Upstream>> {
        match &route.target {
            Target::Upstream(upstream) => Some(upstream.clone()),
            Target::Weighted(all) => {
                let drawn = drawn % all.last()?.0;
                all.iter().find(|(share, _)| drawn < *share).map(|(_, upstream)| upstream.clone())
            }
            Target::Redirect(_) | Target::Direct(_) => None,
            Target::Header(name, _) => {
                let named = head.headers.get(name)?.to_str().ok()?;
                let other = || self.others.as_ref().filter(|_| named.contains("://"))?.get(named);
                self.upstreams.get(named).cloned().or_else(other)
            }
        }
    }
}

impl Route {
    fn new(config: config::Route, upstreams: &Upstreams) -> Result<Route, String> {
        let unknown = |what: &str| format!("routes: {what} is not known");
        let header = |name: &String| HeaderName::try_from(name.as_str()).map_err(|_| unknown(name));
        let target = match (&config.upstream, &config.cluster_header) {
            (Some(name), _) => Target::Upstream(upstreams.get(name).ok_or_else(|| unknown(name))?.clone()),
            (None, Some(name)) => Target::Header(header(name)?, config.remove_cluster_header),
            (None, None) => match (config.redirect, config.direct_response) {
                (Some(redirect), _) => Target::Redirect(redirect),
                (None, Some(response)) => Target::Direct(response),
                (None, None) => {
                    let (mut share, mut all) = (0, vec![]);
                    for (name, weight) in config.weighted.iter().filter(|(_, weight)| **weight > 0) {
                        share += u64::from(*weight);
                        all.push((share, upstreams.get(name).ok_or_else(|| unknown(name))?.clone()));
                    }
                    if all.is_empty() {
                        return Err(unknown("an upstream"));
                    } else {
                        Target::Weighted(all)
                    }
                }
            },
        };
        let path = match (config.path, config.prefix, config.regex) {
            (Some(path), ..) => Path::Exact(path),
            (_, Some(prefix), _) => Path::Prefix(prefix),
            (.., Some(regex)) => {
                Path::Regex(Regex::new(&format!("^(?:{regex})$")).map_err(|error| format!("routes: {error}"))?)
            }
            _ => Path::Any,
        };
        Ok(Route {
            name: config.name.map(Arc::from),
            virtual_host: config.virtual_host.map(Arc::from),
            chain: config.chain,
            timeout: config.timeout.map(|seconds| seconds.0),
            retry: config.retry.map(Policy::new),
            hosts: config.hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect(),
            path,
            methods: config.methods,
            headers: config
                .headers
                .into_iter()
                .map(|(name, value)| Ok((header(&name)?, value)))
                .collect::<Result<_, String>>()?,
            target,
            prefix_rewrite: config.prefix_rewrite,
            host_rewrite: config
                .host_rewrite
                .map(|host| HeaderValue::from_str(&host).map_err(|_| unknown(&host)))
                .transpose()?,
        })
    }

    fn fits(&self, head: &Head) -> bool {
        let path = head.target.split('?').next().unwrap_or_default();
        (match &self.path {
            Path::Any => true,
            Path::Exact(exact) => path == exact,
            Path::Prefix(prefix) => path.starts_with(prefix.as_str()),
            Path::Regex(regex) => regex.is_match(path),
        }) && (self.methods.is_empty() || self.methods.iter().any(|method| method == head.method.as_str()))
            && self.headers.iter().all(|(name, value)| {
                head.headers.get_all(name).iter().any(|given| given.as_bytes() == value.as_bytes())
            })
    }

    fn is_for_host(&self, head: &Head) -> bool {
        if self.hosts.is_empty() {
            return true;
        }
        let host = host_of(head.authority.as_bytes()).to_ascii_lowercase();
        self.hosts.iter().any(|pattern| match pattern.strip_prefix('*') {
            Some("") => true,
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_bytes()),
            None => host == pattern.as_bytes(),
        })
    }

    /// The answer of a route without an upstream.
    pub fn answer(&self, head: &Head) -> Option<UpstreamError> {
        match &self.target {
            Target::Redirect(redirect) => {
                let location = HeaderValue::try_from(self.location(redirect, head)).ok();
                Some(UpstreamError { location, ..UpstreamError::new(redirect.status, "", "direct_response") })
            }
            Target::Direct(response) => Some(UpstreamError::new(response.status, &response.body, "direct_response")),
            _ => None,
        }
    }

    /// The URL of a redirect, composed as Envoy's `newUri` does.
    fn location(&self, redirect: &config::Redirect, head: &Head) -> Vec<u8> {
        let came = if head.https { "https" } else { "http" };
        let scheme = redirect.scheme.as_deref().unwrap_or(came);
        let asked = head.authority.as_bytes();
        let host = match &redirect.host {
            Some(host) => host.as_bytes(),
            None if redirect.port.is_some() => host_of(asked),
            None if scheme != came && asked.ends_with(if head.https { b":443" } else { b":80" }) => host_of(asked),
            None => asked,
        };
        let port = redirect.port.map_or(String::new(), |port| format!(":{port}"));
        let (path, query) = head.target.split_at(head.target.find('?').unwrap_or(head.target.len()));
        let query = if redirect.strip_query { "" } else { query };
        let target = match (&redirect.path, &redirect.prefix_rewrite) {
            (Some(path), _) if path.contains('?') => path.clone(),
            (Some(path), _) => format!("{path}{query}"),
            (None, Some(to)) => format!("{}{query}", self.rewritten(path, to).unwrap_or_else(|| path.to_owned())),
            (None, None) => format!("{path}{query}"),
        };
        [scheme.as_bytes(), b"://", host, port.as_bytes(), target.as_bytes()].concat()
    }

    /// The target with the route's path or prefix replaced, as text, as in Envoy and nginx; `None` if it has neither.
    fn rewritten(&self, target: &str, to: &str) -> Option<String> {
        let from = match &self.path {
            Path::Exact(path) | Path::Prefix(path) => path.as_str(),
            _ if to.ends_with('/') => "/",
            _ => "",
        };
        let rest = target.strip_prefix(from).filter(|_| target.starts_with('/'))?;
        Some(format!("{to}{rest}"))
    }

    /// Apply the route's rewrites to a head that has passed the filters.
    pub fn rewrite(&self, head: &mut Head) {
        if let Target::Header(name, true) = &self.target {
            head.headers.remove(name);
        }
        if let Some(to) = &self.prefix_rewrite
            && let Some(target) = self.rewritten(&head.target, to)
        {
            head.target = target;
        }
        if let Some(host) = &self.host_rewrite {
            head.say_host(host.clone());
        }
    }
}

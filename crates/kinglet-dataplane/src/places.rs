//! Every backend by key: one lobby per Revision, one per port of an ordinary Service.
//!
//! Places outlive route tables and updates, so that the order in which the two arrive does not matter: a table may name
//! a backend that nobody has described yet, and its requests wait in that place's lobby.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use kinglet_decide::feed::{Endpoint, Key, Protocol, RevisionBackend, ServiceBackend};
use parking_lot::Mutex;

use crate::lobby::{Container, Facts, Lobby, Wiring};

/// All backends.
pub(crate) struct Places {
    wiring: Arc<Wiring>,
    by_key: Mutex<HashMap<Key, Arc<Place>>>,
}

/// A Kubernetes Service as the gateway sees it.
pub(crate) struct Place {
    key: Key,
    /// The Revision of this name, or whatever is not known yet.
    revision: Arc<Lobby>,
    is_service: AtomicBool,
    known: AtomicBool,
    ports: ArcSwap<Vec<(u16, Arc<Lobby>)>>,
}

impl Places {
    pub(crate) fn new(wiring: Arc<Wiring>) -> Self {
        Self {
            wiring,
            by_key: Mutex::default(),
        }
    }

    pub(crate) fn of(&self, key: &Key) -> Arc<Place> {
        let mut by_key = self.by_key.lock();
        let place = by_key.entry(key.clone()).or_insert_with(|| {
            Arc::new(Place {
                key: key.clone(),
                revision: Lobby::new(key.clone(), self.wiring.clone()),
                is_service: AtomicBool::new(false),
                known: AtomicBool::new(false),
                ports: ArcSwap::default(),
            })
        });
        place.clone()
    }

    pub(crate) fn set_revision(&self, key: &Key, backend: Option<&RevisionBackend>) {
        let place = self.of(key);
        match backend {
            Some(backend) => {
                place.known.store(true, Ordering::Release);
                place.is_service.store(false, Ordering::Release);
                place
                    .revision
                    .describe(Facts::of(backend), &backend.endpoints);
                place.forget_ports();
            }
            None => {
                place
                    .known
                    .store(place.is_service.load(Ordering::Acquire), Ordering::Release);
                place.revision.forget();
            }
        }
    }

    pub(crate) fn set_service(&self, key: &Key, backend: Option<&ServiceBackend>) {
        let place = self.of(key);
        let Some(backend) = backend else {
            if place.is_service.swap(false, Ordering::AcqRel) {
                place.known.store(false, Ordering::Release);
                place.forget_ports();
            }
            return;
        };
        if place.known.load(Ordering::Acquire) && !place.is_service.load(Ordering::Acquire) {
            // A Revision's own Service is reported too by a feed that does not tell them apart; the Revision wins.
            return;
        }
        let before = place.ports.load_full();
        let ports: Vec<(u16, Arc<Lobby>)> = backend
            .ports
            .iter()
            .map(|(port, addresses)| {
                let lobby = match before.iter().find(|(known, _)| known == port) {
                    Some((_, lobby)) => lobby.clone(),
                    None => Lobby::new(key.clone(), self.wiring.clone()),
                };
                let protocol = if backend.h2c_ports.contains(port) {
                    Protocol::H2c
                } else {
                    Protocol::Http1
                };
                let endpoints: Vec<Endpoint> = addresses
                    .iter()
                    .map(|address| Endpoint {
                        pod: key.name.clone(),
                        address: *address,
                    })
                    .collect();
                lobby.describe(Facts::of_service(protocol), &endpoints);
                (*port, lobby)
            })
            .collect();
        let gone: Vec<_> = before
            .iter()
            .filter(|(port, _)| !ports.iter().any(|(kept, _)| kept == port))
            .cloned()
            .collect();
        place.ports.store(Arc::new(ports));
        place.is_service.store(true, Ordering::Release);
        place.known.store(true, Ordering::Release);
        gone.iter().for_each(|(_, lobby)| lobby.forget());
        // Whoever waited without knowing what for looks again and finds the port.
        place.revision.forget();
    }

    /// Forgets places that no table names and no update describes.
    pub(crate) fn retain(&self, named: &HashSet<&Key>) {
        self.by_key.lock().retain(|key, place| {
            place.known.load(Ordering::Acquire)
                || named.contains(key)
                || place.lobbies().iter().any(|lobby| lobby.in_flight() > 0)
        });
    }

    pub(crate) fn lobbies(&self) -> Vec<Arc<Lobby>> {
        let places: Vec<_> = self.by_key.lock().values().cloned().collect();
        places.iter().flat_map(|place| place.lobbies()).collect()
    }

    pub(crate) fn close_address(&self, ip: IpAddr) -> Vec<Arc<Container>> {
        self.lobbies()
            .iter()
            .flat_map(|lobby| lobby.close_address(ip))
            .collect()
    }
}

impl Place {
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// Whether an update has described it.
    pub(crate) fn is_known(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }

    pub(crate) fn is_service(&self) -> bool {
        self.is_service.load(Ordering::Acquire)
    }

    /// Where requests for `port` go. A Revision's ports all lead to its one user port.
    pub(crate) fn lobby(&self, port: u16) -> Arc<Lobby> {
        if self.is_service()
            && let Some((_, lobby)) = self.ports.load().iter().find(|(known, _)| *known == port)
        {
            return lobby.clone();
        }
        self.revision.clone()
    }

    fn lobbies(&self) -> Vec<Arc<Lobby>> {
        let mut lobbies = vec![self.revision.clone()];
        lobbies.extend(self.ports.load().iter().map(|(_, lobby)| lobby.clone()));
        lobbies
    }

    fn forget_ports(&self) {
        let before = self.ports.swap(Arc::default());
        before.iter().for_each(|(_, lobby)| lobby.forget());
    }
}

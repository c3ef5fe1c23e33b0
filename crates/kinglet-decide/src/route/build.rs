//! From KIngress rules to a table that can be searched.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::{
    Certificate, Choice, Conflict, HostEntry, HttpOption, IngressRule, Path, PathRule, RouteTable,
    Split, Spread, Visibility, host,
};

impl RouteTable {
    /// Builds a table. Rules of one KIngress may share a host; between KIngresses the first rule keeps it
    /// ([`RouteTable::conflicts`]). A path whose splits have no weight is left out.
    pub fn build(version: u64, rules: Vec<IngressRule>) -> Self {
        let mut table = Self {
            version,
            ..Self::default()
        };
        for rule in rules {
            table.add(&rule);
        }
        for entry in table.hosts.values_mut() {
            for paths in [&mut entry.external, &mut entry.local] {
                paths.sort_by_key(|path| (Reverse(path.prefix.len()), Reverse(path.headers.len())));
            }
        }
        table
    }

    fn add(&mut self, rule: &IngressRule) {
        // One spread per path, shared by all hosts of the rule: their requests are one stream to the backends.
        let spreads: Vec<Option<Arc<Spread>>> = rule
            .paths
            .iter()
            .map(|path| self.spread(rule, path))
            .collect();
        for name in &rule.hosts {
            let name = host::bare(name).to_ascii_lowercase();
            let entry = match self.hosts.entry(name.clone().into_boxed_str()) {
                Entry::Occupied(occupied) => occupied.into_mut(),
                Entry::Vacant(vacant) => vacant.insert(HostEntry {
                    owner: rule.ingress.clone(),
                    external: Vec::new(),
                    local: Vec::new(),
                    external_certificates: Vec::new(),
                    local_certificates: Vec::new(),
                }),
            };
            if entry.owner != rule.ingress {
                let conflict = Conflict {
                    host: name,
                    owner: entry.owner.clone(),
                    rejected: rule.ingress.clone(),
                };
                if !self.conflicts.contains(&conflict) {
                    self.conflicts.push(conflict);
                }
                continue;
            }
            if rule.visibility == Visibility::External {
                add_certificates(&mut entry.external_certificates, rule);
            }
            add_certificates(&mut entry.local_certificates, rule);
            for (path, spread) in rule.paths.iter().zip(&spreads) {
                let Some(spread) = spread else { continue };
                if rule.visibility == Visibility::External {
                    entry.external.push(searchable(rule, path, spread));
                }
                entry.local.push(searchable(rule, path, spread));
            }
        }
    }

    fn spread(&mut self, rule: &IngressRule, path: &PathRule) -> Option<Arc<Spread>> {
        let first = self.choices.len();
        let weights: Vec<(usize, u8)> = path
            .splits
            .iter()
            .enumerate()
            .map(|(at, split)| (first + at, split.percent))
            .collect();
        // The version is part of the seed: frequent new tables must not all start with the same target.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a seed is any 32 bits; the lower ones change with each table"
        )]
        let seed = (self.version as u32).wrapping_mul(0x9e37_79b9) ^ first as u32;
        let spread = Spread::new(&weights, seed)?;
        self.choices
            .extend(path.splits.iter().map(|split| choice(rule, path, split)));
        Some(Arc::new(spread))
    }
}

fn add_certificates(to: &mut Vec<Arc<Certificate>>, rule: &IngressRule) {
    for certificate in &rule.certificates {
        if !to.contains(certificate) {
            to.push(Arc::clone(certificate));
        }
    }
}

fn choice(rule: &IngressRule, path: &PathRule, split: &Split) -> Choice {
    let headers: BTreeMap<String, String> = path
        .append_headers
        .iter()
        .chain(&split.append_headers)
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .collect();
    Choice {
        ingress: rule.ingress.clone(),
        target: split.target.clone(),
        append_headers: headers.into_iter().collect(),
        rewrite_host: path.rewrite_host.clone().filter(|host| !host.is_empty()),
        probe_hash: rule.probe_hash.clone(),
    }
}

fn searchable(rule: &IngressRule, path: &PathRule, spread: &Arc<Spread>) -> Path {
    Path {
        prefix: path.path.as_deref().unwrap_or_default().into(),
        headers: path
            .headers
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase().into(), value.as_bytes().into()))
            .collect(),
        redirect: rule.http_option == HttpOption::Redirected,
        spread: spread.clone(),
    }
}

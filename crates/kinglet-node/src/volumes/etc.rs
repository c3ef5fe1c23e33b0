//! `/etc/hosts`, `/etc/resolv.conf` and the host name: text only.

use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::api::core::v1::Pod;

/// Search path entries a resolver may be given (Kubernetes' own bound).
const SEARCH_MAX: usize = 32;
/// Bytes of a host's name, which is Linux' own bound.
const HOSTNAME_BYTES_MAX: usize = 64;

/// What the container's host is called; an error in a kubelet's words when that is longer than Linux takes.
pub(crate) fn hostname(pod: &Pod, cluster_domain: &str) -> Result<String, String> {
    let short = short_hostname(pod);
    let as_fqdn = pod.spec.as_ref().and_then(|spec| spec.set_hostname_as_fqdn) == Some(true);
    let Some(full) = full_hostname(pod, cluster_domain).filter(|_| as_fqdn) else {
        return Ok(short);
    };
    if full.len() > HOSTNAME_BYTES_MAX {
        return Err(format!(
            "Failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long ({HOSTNAME_BYTES_MAX} characters is the max, {} characters requested)",
            full.len()
        ));
    }
    Ok(full)
}

/// The name of the host without a domain.
fn short_hostname(pod: &Pod) -> String {
    let name = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.hostname.as_deref())
        .filter(|name| !name.is_empty());
    let name = name.or(pod.metadata.name.as_deref()).unwrap_or("pod");
    // A DNS label has 63 bytes.
    name.get(..63.min(name.len()))
        .unwrap_or(name)
        .trim_end_matches(['-', '.'])
        .to_owned()
}

/// The name below the Service that the Pod names as its `subdomain`.
fn full_hostname(pod: &Pod, cluster_domain: &str) -> Option<String> {
    let subdomain = pod.spec.as_ref()?.subdomain.as_deref();
    let subdomain = subdomain.filter(|text| !text.is_empty())?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let name = short_hostname(pod);
    Some(format!(
        "{name}.{subdomain}.{namespace}.svc.{cluster_domain}"
    ))
}

/// `/etc/hosts`, as a kubelet writes it.
pub(crate) fn hosts(pod: &Pod, address: Ipv4Addr, cluster_domain: &str) -> String {
    let name = short_hostname(pod);
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nfe00::\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    match full_hostname(pod, cluster_domain) {
        Some(full) => text.push_str(&format!("{address}\t{full}\t{name}\n")),
        None => text.push_str(&format!("{address}\t{name}\n")),
    }
    let aliases = pod
        .spec
        .iter()
        .flat_map(|spec| spec.host_aliases.iter().flatten());
    for (index, alias) in aliases.enumerate() {
        if index == 0 {
            text.push_str("\n# Entries added by HostAliases.\n");
        }
        text.push_str(&format!(
            "{}\t{}\n",
            alias.ip,
            alias.hostnames.as_deref().unwrap_or_default().join("\t")
        ));
    }
    text
}

/// `/etc/resolv.conf` for the pod's DNS policy. `host` is this machine's own file.
pub(crate) fn resolv_conf(pod: &Pod, server: Ipv4Addr, cluster_domain: &str, host: &str) -> String {
    let spec = pod.spec.as_ref();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let of_host = |key: &str| {
        let lines = host
            .lines()
            .filter_map(|line| line.trim().strip_prefix(key).map(str::trim));
        lines
            .flat_map(|rest| rest.split_whitespace())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let (mut servers, mut search, mut options) =
        match spec.and_then(|spec| spec.dns_policy.as_deref()) {
            Some("None") => (Vec::new(), Vec::new(), Vec::new()),
            Some("Default") => {
                let mut servers = of_host("nameserver");
                // A resolver on the host's loopback is not there in a pod; ours asks it.
                for one in &mut servers {
                    if one.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) {
                        *one = server.to_string();
                    }
                }
                (servers, of_host("search"), of_host("options"))
            }
            _ => {
                let ours = [
                    format!("{namespace}.svc.{cluster_domain}"),
                    format!("svc.{cluster_domain}"),
                    cluster_domain.to_owned(),
                ];
                let search = ours.into_iter().chain(of_host("search")).collect();
                (vec![server.to_string()], search, vec!["ndots:5".to_owned()])
            }
        };
    if let Some(config) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        servers.extend(config.nameservers.iter().flatten().cloned());
        search.extend(config.searches.iter().flatten().cloned());
        for option in config.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            options.retain(|other| other.split(':').next() != Some(&name));
            options.push(
                option
                    .value
                    .as_ref()
                    .map_or(name.clone(), |value| format!("{name}:{value}")),
            );
        }
    }
    for list in [&mut servers, &mut search] {
        let mut seen = std::collections::HashSet::new();
        list.retain(|one| seen.insert(one.clone()));
    }
    search.truncate(SEARCH_MAX);
    let mut text = String::new();
    if !search.is_empty() {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    for server in &servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec}))
            .expect("pod")
    }

    #[test]
    fn resolvers_by_policy() {
        let of = |spec| {
            resolv_conf(
                &pod(spec),
                Ipv4Addr::new(10, 1, 0, 1),
                "cluster.local",
                "nameserver 9.9.9.9\nsearch lan\n",
            )
        };
        assert_eq!(
            of(json!({"containers": []})),
            "search ns.svc.cluster.local svc.cluster.local cluster.local lan\nnameserver 10.1.0.1\noptions ndots:5\n"
        );
        assert_eq!(
            of(json!({"containers": [], "dnsPolicy": "Default"})),
            "search lan\nnameserver 9.9.9.9\n"
        );
        assert_eq!(
            resolv_conf(
                &pod(json!({"containers": [], "dnsPolicy": "Default"})),
                Ipv4Addr::new(10, 1, 0, 1),
                "cluster.local",
                "nameserver 127.0.0.53\n",
            ),
            "nameserver 10.1.0.1\n"
        );
        let own = json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "1"}]}});
        assert_eq!(of(own), "nameserver 1.1.1.1\noptions ndots:1\n");
    }

    #[test]
    fn names_and_hosts() {
        let long = "a".repeat(62) + "-b";
        let named = pod(json!({"containers": [], "hostname": long}));
        assert_eq!(hostname(&named, "cluster.local"), Ok("a".repeat(62)));
        let full = json!({"containers": [], "hostname": "h", "subdomain": "web", "setHostnameAsFQDN": true});
        let full = pod(full);
        let fqdn = "h.web.ns.svc.cluster.local";
        assert_eq!(hostname(&full, "cluster.local"), Ok(fqdn.to_owned()));
        let text = hosts(&full, Ipv4Addr::new(10, 0, 0, 9), "cluster.local");
        assert!(text.contains(&format!("10.0.0.9\t{fqdn}\th\n")), "{text}");
        let long = json!({"containers": [], "hostname": "h".repeat(42), "subdomain": "web", "setHostnameAsFQDN": true});
        let error = hostname(&pod(long), "cluster.local").expect_err("67 bytes");
        assert!(
            error.ends_with("is too long (64 characters is the max, 67 characters requested)"),
            "{error}"
        );
        let alone = json!({"containers": [], "setHostnameAsFQDN": true});
        assert_eq!(hostname(&pod(alone), "cluster.local"), Ok("p".to_owned()));
        let text = hosts(
            &pod(
                json!({"containers": [], "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["x", "y"]}]}),
            ),
            Ipv4Addr::new(10, 0, 0, 9),
            "cluster.local",
        );
        assert!(text.contains("10.0.0.9\tp\n") && text.contains("1.2.3.4\tx\ty\n"));
    }
}

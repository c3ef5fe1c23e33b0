//! Certificate: signed by the machine's own authority for browsers, put into a Secret, and renewed, where no cert-manager
//! does it.
//!
//! Flow: Certificate or its Secret changed -> [`decide::examine`] (is what the Secret has still good?) -> the authority signs
//! anew -> Secret, status -> the Ingress that shows the Secret is woken by it.
//! Always: a name is signed only for the namespace that it belongs to; a Secret that somebody else made is left alone; a
//! certificate is renewed after two thirds of its life.

mod decide;

#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::Secret;
use kinglet_api::keys;
use kinglet_api::networking::Certificate;
use kinglet_api::serving::Route;
use kinglet_process::pki::Browsers;
use kinglet_reconcile::{Context, Controller, Next, is_deleting, label};

use crate::configs::LiveConfigs;
use decide::{CertificateObserved, Examined};

/// Starts the controller. It serves Kinglet's own class, and cert-manager's, since this is for where there is none.
pub fn start(context: &Context, live: LiveConfigs, browsers: Browsers) {
    Controller::<Certificate>::new("certificate-controller")
        .owns::<Secret>()
        .reads::<Route>()
        .reports_errors()
        .run(context, move |context, key| {
            let (live, browsers) = (live.clone(), browsers.clone());
            async move {
                let found = context.cache::<Certificate>().find(&key);
                let ours = found.filter(|found| !is_deleting(&**found) && is_ours(found));
                let Some(certificate) = ours else {
                    return Ok(Next::Done);
                };
                let observed = observe(&context, &live, certificate);
                let examined = decide::examine(&observed, |pem, host, domains| {
                    browsers.has_signed(pem, host, domains, observed.now)
                });
                let issued = match examined {
                    Examined::Due => {
                        let names = &observed.certificate.spec.dns_names;
                        let signed = browsers.issue(names, &observed.domains, observed.now);
                        Some(signed.map_err(|error| error.to_string()))
                    }
                    Examined::Good { .. } | Examined::Refused(_) => None,
                };
                let plan = decide::decide(&observed, examined, issued);
                crate::outcome::apply(&context, &*observed.certificate, plan).await
            }
        });
}

fn is_ours(certificate: &Certificate) -> bool {
    let class = keys::CERTIFICATE_CLASS.get(certificate.metadata.annotations.as_ref());
    matches!(
        class,
        Some(keys::CERTIFICATE_CLASS_KINGLET | keys::CERTIFICATE_CLASS_CERT_MANAGER)
    )
}

fn observe(
    context: &Context,
    live: &LiveConfigs,
    certificate: std::sync::Arc<Certificate>,
) -> CertificateObserved {
    let configs = live.get();
    let namespace = certificate.namespace();
    let route = label(&*certificate, keys::ROUTE)
        .and_then(|route| context.cache::<Route>().get(namespace, route));
    CertificateObserved {
        secret: context
            .cache::<Secret>()
            .get(namespace, &certificate.spec.secret_name),
        hosts: route.map_or_else(Default::default, |route| {
            crate::route::public_hosts(&route, &configs)
        }),
        domains: configs.domain.names(),
        now: context.now(),
        certificate,
    }
}

//! https from outside: certificates of Secrets and of the machine's own authority, over a restart.

use anyhow::{Context as _, ensure};
use kinglet_process::pki::Pki;
use kinglet_testkit::api::{sample_service, serving};
use kinglet_testkit::{Api, Instance, Setup, instance::scratch, until, web};
use serde_json::{Value, json};

use crate::{READY_MAX, root, run, setup};

const NETWORK: &str = "/api/v1/namespaces/knative-serving/configmaps/config-network";
const INGRESSES: &str =
    "/apis/networking.internal.knative.dev/v1alpha1/namespaces/default/ingresses";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const HOST: &str = "hello.default.localhost";

fn authority(instance: &Instance) -> anyhow::Result<String> {
    let file = instance
        .ready
        .https_ca
        .as_ref()
        .context("a file is named")?;
    std::fs::read_to_string(file).with_context(|| file.clone())
}

/// Waits for `url` of the Service, and that it is Ready.
async fn reached_at(api: &Api, service: &str, url: &str) -> anyhow::Result<()> {
    until(url, READY_MAX, || async {
        let found = api.get(service).await?;
        Ok((found["status"]["url"] == url).then_some(()))
    })
    .await?;
    api.condition(service, "Ready", "True", READY_MAX).await?;
    Ok(())
}

#[test]
fn a_service_gets_a_certificate_of_the_machines_own_authority() {
    if !root() {
        return;
    }
    run(async {
        let setup = Setup {
            data: Some(scratch("https")),
            ..setup()
        };
        let instance = setup.start().await?;
        let api = Api::open(instance.ready.kubeconfig.as_ref()).await?;
        let services = serving("default", "services");
        let service = format!("{services}/hello");
        api.create(&services, &sample_service("hello", "default", "helloworld"))
            .await?;
        reached_at(&api, &service, &format!("http://{HOST}")).await?;
        ensure!(
            authority(&instance).is_err(),
            "nobody has asked for one yet"
        );
        ensure!(
            web::get_tls(instance.https(), HOST, "/", "").await.is_err(),
            "no certificate, no https"
        );
        api.merge(
            NETWORK,
            &json!({"data": {"external-domain-tls": "Enabled"}}),
        )
        .await?;
        reached_at(&api, &service, &format!("https://{HOST}")).await?;
        let trusted = authority(&instance)?;
        let got = web::get_tls(instance.https(), HOST, "/", &trusted).await?;
        ensure!(got.status == 200 && got.body.contains("Hello"), "{got:?}");
        let got = web::get(instance.gateway(), HOST, "/").await?;
        ensure!(got.status == 200, "plain http goes on: {got:?}");
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(instance.data.join("pki/browser-ca.key"))?.permissions(),
        );
        ensure!(mode & 0o077 == 0, "{mode:o}");
        api.merge(NETWORK, &json!({"data": {"http-protocol": "Redirected"}}))
            .await?;
        let location = format!("https://{HOST}:{}/x?y", port_of(instance.https()));
        until("plain http to be redirected", READY_MAX, || async {
            let got = web::get(instance.gateway(), HOST, "/x?y").await?;
            let told = got.headers.get("location");
            Ok((got.status == 301 && told.is_some_and(|told| *told == location)).then_some(()))
        })
        .await?;
        // The next life shows the same at once, and the clients of this one trust it.
        instance.stop().await?;
        let instance = setup.start().await?;
        let got = web::get_tls(instance.https(), HOST, "/", &trusted).await?;
        ensure!(got.status == 200, "{got:?}");
        let api = Api::open(instance.ready.kubeconfig.as_ref()).await?;
        api.merge(
            NETWORK,
            &json!({"data": {"external-domain-tls": null, "http-protocol": null}}),
        )
        .await?;
        reached_at(&api, &service, &format!("http://{HOST}")).await?;
        let log = instance.log();
        ensure!(!log.contains("PRIVATE KEY"), "a key in the log");
        instance.stop().await?;
        std::fs::remove_dir_all(setup.data.unwrap_or_default())?;
        Ok(())
    });
}

fn port_of(address: &str) -> &str {
    address.rsplit(':').next().unwrap_or_default()
}

fn secret(pki: &Pki) -> anyhow::Result<Value> {
    let now = kinglet_process::Clock::system().now();
    let made = pki.server(&["own.test".to_owned()], &[], now)?;
    Ok(
        json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "own"},
        "stringData": {"tls.crt": made.certificate_pem, "tls.key": made.key_pem}}),
    )
}

#[test]
fn an_ingress_shows_what_its_secret_has() {
    if !root() {
        return;
    }
    run(async {
        let instance = setup().start().await?;
        let api = Api::open(instance.ready.kubeconfig.as_ref()).await?;
        let services = serving("default", "services");
        api.create(&services, &sample_service("hello", "default", "helloworld"))
            .await?;
        api.condition(&format!("{services}/hello"), "Ready", "True", READY_MAX)
            .await?;
        let split = json!({"serviceName": "hello-00001", "serviceNamespace": "default", "servicePort": 80, "percent": 100});
        let ingress = json!({
            "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "Ingress",
            "metadata": {"name": "own", "annotations": {"networking.knative.dev/ingress.class": "kinglet.ingress.networking.knative.dev"}},
            "spec": {
                "tls": [{"hosts": ["own.test"], "secretName": "own", "secretNamespace": "default"}],
                "rules": [{"hosts": ["own.test"], "visibility": "ExternalIP", "http": {"paths": [{"splits": [split]}]}}],
            },
        });
        api.create(INGRESSES, &ingress).await?;
        let path = format!("{INGRESSES}/own");
        until("the Ingress to miss its Secret", READY_MAX, || async {
            let found = api.get(&path).await?;
            let text = found["status"]["conditions"].to_string();
            Ok(text
                .contains("Secret default/own: it is not there")
                .then_some(()))
        })
        .await?;
        let got = web::get(instance.gateway(), "own.test", "/").await?;
        ensure!(got.status == 200, "plain http is served meanwhile: {got:?}");
        let folders = [scratch("own-ca"), scratch("other-ca")];
        let now = kinglet_process::Clock::system().now();
        let first = Pki::open(&folders[0], now)?;
        let second = Pki::open(&folders[1], now)?;
        api.create(SECRETS, &secret(&first)?).await?;
        api.condition(&path, "Ready", "True", READY_MAX).await?;
        // Ready means shown.
        let got = web::get_tls(instance.https(), "own.test", "/", &first.ca_pem).await?;
        ensure!(got.status == 200, "{got:?}");
        let misdirected = web::get_tls(
            instance.https(),
            "own.test",
            "http://other.test/",
            &first.ca_pem,
        )
        .await?;
        ensure!(misdirected.status == 421, "{misdirected:?}");
        let changed = secret(&second)?;
        api.merge(
            &format!("{SECRETS}/own"),
            &json!({"stringData": changed["stringData"]}),
        )
        .await?;
        until("the new certificate to be shown", READY_MAX, || async {
            let got = web::get_tls(instance.https(), "own.test", "/", &second.ca_pem).await;
            Ok(got.is_ok_and(|got| got.status == 200).then_some(()))
        })
        .await?;
        let log = instance.log();
        ensure!(!log.contains("PRIVATE KEY"), "a key in the log");
        instance.stop().await?;
        for folder in folders {
            std::fs::remove_dir_all(folder)?;
        }
        Ok(())
    });
}

//! The API server alone on a socket, for trying clients against it: `serve DIR PORT [CRD.yaml…]` writes DIR/kubeconfig.

use std::path::PathBuf;
use std::sync::Arc;

use kinglet_apiserver::{ApiServer, Identity, Options, Signer, StaticToken, listen};
use kinglet_process::Tasks;
use kinglet_store::Store;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("serve DIR PORT [CRD.yaml…]")?);
    let port: u16 = arguments
        .next()
        .ok_or("serve DIR PORT [CRD.yaml…]")?
        .parse()?;
    let store = Store::open(&folder.join("state"), ApiServer::store_options())?;
    let admin = Identity::remote("admin", vec!["system:masters".to_owned()]);
    let options = Options {
        tokens: vec![StaticToken {
            token: "admin".to_owned(),
            identity: admin,
        }],
        signer: Some(Arc::new(Signer::from_pem(&Signer::generate()?)?)),
        ..Options::default()
    };
    let api = ApiServer::new(store, options);
    for file in arguments {
        for document in std::fs::read_to_string(file)?
            .split("\n---")
            .filter(|text| text.contains("kind: CustomResourceDefinition"))
        {
            api.install(serde_saphyr::from_str(document)?).await?;
        }
    }
    let key = rcgen::KeyPair::generate()?;
    let certificate =
        rcgen::CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&key)?;
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()?
    .with_no_client_auth()
    .with_single_cert(
        vec![certificate.der().clone()],
        rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
    )?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let socket = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let config = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: k\ncontexts: [{{name: k, context: {{cluster: k, user: k}}}}]\nusers: [{{name: k, user: {{token: admin}}}}]\n\
         clusters: [{{name: k, cluster: {{server: 'https://{}', insecure-skip-tls-verify: true}}}}]\n",
        socket.local_addr()?
    );
    std::fs::write(folder.join("kubeconfig"), config)?;
    let tasks = Tasks::new();
    let stop = tasks.token();
    tokio::select! {
        () = listen::serve(api.clone(), socket, Arc::new(tls), tasks.child()) => {}
        signal = tokio::signal::ctrl_c() => signal?,
    }
    stop.cancel();
    api.store().close();
    Ok(())
}

//! `secateur serve`: the engine behind an OpenAI-style interface, and a page to see it.

use std::{
    io,
    net::{TcpListener, ToSocketAddrs},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::Context;
use secateur_backends::{Job, VlmBackend};

use super::{
    args::ServeArgs,
    check_sampling,
    plan::{MethodPlan, ModelPlan, names},
    print,
    terminal::log,
};
use crate::{
    engine::{Decoding, Limits, Sampling},
    files::address,
    model::{DEMO, Model},
    pruner::{Params, methods},
    serve::{Keys, Server, Settings, Stop},
};

/// The variable with a key.
const KEY: &str = "SECATEUR_API_KEY";
/// The time for a client to send the head of a request.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn run(mut args: ServeArgs) -> anyhow::Result<()> {
    args.model.model.get_or_insert_with(|| DEMO.to_owned());
    check_sampling(args.temperature, args.top_p)?;
    if args.batch_size == 0 || args.queue == 0 || args.step_rows == 0 || args.max_new_tokens == 0 {
        usage!("--batch-size, --queue, --step-rows and --max-new-tokens are 1 or more");
    }
    let usual = MethodPlan::new(&args.model.method)?;
    let (plan, missing) = plan(&args)?;
    plan.note_penalty();
    let offered: Vec<&'static str> = plan.methods.iter().map(|plan| plan.method).collect();
    if !offered.contains(&usual.method) {
        let reason = missing.iter().find(|(name, _)| *name == usual.method).map_or("", |(_, reason)| reason);
        usage!("--method {} cannot run here: {reason}", usual.method);
    }
    let (target, keys) = (usual.target, keys(&args)?);
    if keys.is_empty() && !is_loopback(&args.host) {
        say!("note: everybody who reaches {} may ask; --api-key-file names a file with keys", args.host);
    }
    let listener = listen(&args.host, args.port)?;
    let settings = settings(&args, &usual, keys, offered, missing)?;
    let server = Server::start(listener, settings).context("the server cannot start")?;
    stop_on_signals(server.stopper())?;
    // Scripts read the address from the only line of stdout.
    print(&format!("http://{}", server.address()))?;
    target.run(Serve { plan, server })?
}

struct Serve {
    plan: ModelPlan,
    server: Server,
}

impl Job for Serve {
    type Output = anyhow::Result<()>;

    fn run<B: VlmBackend>(self, device: B::Device) -> Self::Output {
        let model: Model<B> = self.plan.load(&device)?;
        LOADED.store(true, Ordering::Relaxed);
        say!("the model is ready");
        self.server.run(&model).context("the server's connections broke off")
    }
}

/// Whether the model is loaded: before that, nobody's answer is lost when the program ends.
static LOADED: AtomicBool = AtomicBool::new(false);

/// A plan for every method that the checkpoint can run, and the others with the reasons.
fn plan(args: &ServeArgs) -> anyhow::Result<(ModelPlan, Vec<(&'static str, String)>)> {
    let mut all = args.model.clone();
    all.method.method = Some("all".to_owned());
    all.method.tokens = Some(1.into());
    let plan = ModelPlan::new(&all, MethodPlan::several(&all.method)?)?;
    let runs = |name: &&'static str| plan.methods.iter().any(|plan| plan.method == *name);
    let reason = |name: &'static str| {
        let card = methods(Params::default()).iter().map(|method| method.card()).find(|card| card.name == name)?;
        let needs = plan.checkpoint.check_needs(card.needs).err();
        let text = needs.or_else(|| plan.checkpoint.check_text_side().err());
        Some((name, text.map_or_else(|| "the checkpoint lacks what it reads".to_owned(), |error| error.to_string())))
    };
    let missing = names("all")?.into_iter().filter(|name| !runs(name)).filter_map(reason).collect();
    Ok((plan, missing))
}

/// The keys of the file and of the environment.
fn keys(args: &ServeArgs) -> anyhow::Result<Keys> {
    let of_file = args.api_key_file.as_deref().map(Keys::read).transpose()?.unwrap_or_default();
    let of_environment = match std::env::var(KEY) {
        Ok(key) if key.trim().is_empty() => usage!("{KEY} is there, and empty: unset it, or put a key into it"),
        Ok(key) => Keys::new(&key),
        Err(_) => Keys::default(),
    };
    Ok(of_file.and(of_environment))
}

fn settings(
    args: &ServeArgs,
    usual: &MethodPlan,
    keys: Keys,
    methods: Vec<&'static str>,
    missing: Vec<(&'static str, String)>,
) -> anyhow::Result<Settings> {
    if let Some(folder) = args.media_path.as_ref().filter(|folder| !folder.is_dir()) {
        match address(folder) {
            Some(error) => return Err(error.into()),
            None => usage!("--media-path {}: there is no such folder", folder.display()),
        }
    }
    let sampling = Sampling::new(args.temperature, args.top_p, args.model.method.seed);
    let names = args.name.iter().cloned().chain([args.model.model().to_owned()]).collect();
    Ok(Settings {
        names,
        keys,
        queue: args.queue,
        limits: Limits {
            batch: args.batch_size,
            step_rows: args.step_rows,
            kv_bytes: args.kv_gib.saturating_mul(1 << 30),
            ..Limits::default()
        },
        decoding: Decoding {
            max_new_tokens: args.max_new_tokens,
            sampling,
            stops: true,
            // The model's own takes its place once it is loaded.
            repetition_penalty: 1.0,
        },
        seed: args.model.method.seed,
        usual: (usual.method, usual.tokens),
        params: usual.params,
        methods,
        missing,
        remote_images: args.allow_remote_images,
        media_path: args.media_path.clone(),
        cors: args.cors.clone(),
        grace: Duration::from_secs(args.grace),
        patience: PATIENCE,
        log: Box::new(log),
    })
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn listen(host: &str, port: u16) -> anyhow::Result<TcpListener> {
    let addresses: Vec<_> = match (host, port).to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(_) => usage!("--host {host}: this is neither an address nor a name of this machine"),
    };
    TcpListener::bind(&addresses[..]).map_err(|error| {
        let reason = match error.kind() {
            io::ErrorKind::AddrInUse => "something listens there already; --port takes another one".to_owned(),
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 are for the system; --port takes another one".to_owned()
            }
            io::ErrorKind::AddrNotAvailable => "this machine does not have that address".to_owned(),
            _ => "the system refuses it".to_owned(),
        };
        anyhow::anyhow!("{host}:{port}: {reason}")
    })
}

/// Stops the server on Ctrl-C and on SIGTERM; the second one ends the program at once.
fn stop_on_signals(stop: Stop) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let runtime = runtime.context("the signals that stop the server cannot be awaited")?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            signal().await;
            if !LOADED.load(Ordering::Relaxed) {
                std::process::exit(0);
            }
            stop.stop();
            signal().await;
            std::process::exit(0);
        });
    });
    Ok(())
}

/// Waits for Ctrl-C or SIGTERM.
#[cfg(unix)]
async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// Waits for Ctrl-C.
#[cfg(not(unix))]
async fn signal() {
    let _ = tokio::signal::ctrl_c().await;
}

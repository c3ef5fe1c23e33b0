//! Real containers on this machine: needs root and a static busybox, and says so in one line where they are missing.
//!
//! The test binary is its own helper, so it has a `main` of its own: every case is an async function that panics when it
//! fails. A word on the command line picks the cases whose name contains it.

#![expect(
    clippy::disallowed_methods,
    reason = "tests spawn peers, measure real time and read where to find programs"
)]

mod attacker;
mod attacker_frames;
mod engine;
mod escape;
mod escape_mounts;
mod escape_network;
mod faults;
mod hostile_images;
mod hostile_volumes;
mod pods;
mod probes;
mod services;
mod sessions;
mod termination;
mod world;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Instant;

use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

type Case = (&'static str, fn() -> Pin<Box<dyn Future<Output = ()>>>);

const CASES: &[Case] = &[
    ("engine_starts_containers_in_milliseconds", || {
        Box::pin(engine::starts())
    }),
    ("engine_says_whose_fault_it_is", || {
        Box::pin(engine::failures())
    }),
    ("engine_leaves_nothing_behind", || {
        Box::pin(engine::leaves_nothing())
    }),
    ("container_sees_what_real_ones_see", || {
        Box::pin(engine::sees())
    }),
    ("java_sees_its_limits", || Box::pin(engine::java())),
    (
        "escape_by_system_calls",
        || Box::pin(escape::system_calls()),
    ),
    ("escape_by_devices", || Box::pin(escape::devices())),
    ("escape_by_devices_version_2", || {
        Box::pin(escape::version_2_devices())
    }),
    ("escape_by_set_user_id", || Box::pin(escape::set_user_id())),
    (
        "escape_by_kernel_files",
        || Box::pin(escape::kernel_files()),
    ),
    ("escape_by_descriptors", || Box::pin(escape::descriptors())),
    ("escape_by_own_binary", || Box::pin(escape::own_binary())),
    ("escape_by_links", || Box::pin(escape::links())),
    ("escape_by_files_of_an_image_below_proc", || {
        Box::pin(escape_mounts::files_below_proc())
    }),
    ("escape_by_volumes_in_the_way", || {
        Box::pin(escape_mounts::volumes_in_the_way())
    }),
    ("escape_by_frames", || Box::pin(escape_network::frames())),
    ("escape_by_exchanging_directories", || {
        Box::pin(escape_mounts::exchange_race())
    }),
    ("users_of_a_pod_are_nobody_on_the_host", || {
        Box::pin(escape::user_namespace())
    }),
    ("host_namespaces_are_shared_when_asked", || {
        Box::pin(escape::host_namespaces())
    }),
    ("abandoned_exec_leaves_no_process", || {
        Box::pin(escape::abandoned_exec())
    }),
    ("a_frozen_container_does_not_hold_up_a_stop", || {
        Box::pin(engine::frozen())
    }),
    ("nested_groups_are_removed", || {
        Box::pin(escape::nested_groups())
    }),
    ("stop_while_parking_leaves_nothing", || {
        Box::pin(escape::stop_while_parking())
    }),
    ("pod_becomes_ready_in_one_write", || Box::pin(pods::ready())),
    ("pod_sees_its_volumes_and_environment", || {
        Box::pin(pods::volumes())
    }),
    ("pod_with_init_containers_ends", || {
        Box::pin(pods::init_and_end())
    }),
    ("crash_is_reported_with_last_words", || {
        Box::pin(pods::crash())
    }),
    ("missing_image_is_reported", || {
        Box::pin(pods::missing_image())
    }),
    ("loopback_only_programs_are_reached", || {
        Box::pin(pods::loopback())
    }),
    ("deletion_drains_and_removes", || Box::pin(pods::deletion())),
    ("liveness_failure_restarts", || Box::pin(pods::liveness())),
    ("pods_of_an_earlier_life_are_gone", || {
        Box::pin(pods::earlier_life())
    }),
    ("http_probes_of_every_kind", || Box::pin(probes::http())),
    ("startup_probe_waits_for_the_program", || {
        Box::pin(probes::startup_once())
    }),
    ("exec_probe_that_hangs_leaves_nothing", || {
        Box::pin(probes::exec_timeout())
    }),
    ("probes_and_hooks_never_reach_the_host", || {
        Box::pin(probes::to_host())
    }),
    ("liveness_probe_restarts_with_reason", || {
        Box::pin(probes::liveness())
    }),
    (
        "probes_of_real_servers",
        || Box::pin(probes::real_servers()),
    ),
    ("probe_thresholds_count", || Box::pin(probes::thresholds())),
    ("exec_sessions_carry_everything", || {
        Box::pin(sessions::exec())
    }),
    ("attached_clients_talk_to_the_program", || {
        Box::pin(sessions::attach())
    }),
    ("ports_on_loopback_are_reached", || {
        Box::pin(sessions::ports())
    }),
    ("crowds_of_files_are_removed_in_the_background", || {
        Box::pin(hostile_volumes::crowds())
    }),
    ("hooks_run_and_do_not_mind_the_status", || {
        Box::pin(termination::hooks())
    }),
    ("requests_drain_before_sigterm", || {
        Box::pin(termination::drain())
    }),
    ("pods_that_are_starting_go_at_once", || {
        Box::pin(termination::while_starting())
    }),
    ("deadline_finalizer_and_force", || {
        Box::pin(termination::deadline_finalizer_and_force())
    }),
    ("names_resolve_inside_pods", || Box::pin(pods::names())),
    ("a_fault_of_a_worker_restarts_its_pod", || {
        Box::pin(faults::worker())
    }),
    ("a_fault_of_a_task_restarts_its_pod", || {
        Box::pin(faults::task())
    }),
    ("a_container_that_ended_is_probed_no_more", || {
        Box::pin(faults::no_probes_of_the_dead())
    }),
    ("service_addresses_lead_to_endpoints_or_are_refused", || {
        Box::pin(services::refusals())
    }),
    ("links_in_volumes_lead_nowhere", || {
        Box::pin(hostile_volumes::link_swap())
    }),
    ("deep_directories_are_removed_in_the_background", || {
        Box::pin(hostile_volumes::deep_directories())
    }),
    ("last_words_and_memory_have_sizes_of_their_own", || {
        Box::pin(hostile_volumes::sizes())
    }),
    ("a_sub_path_has_the_mode_of_its_volume", || {
        Box::pin(hostile_volumes::sub_path())
    }),
    ("a_missing_secret_is_named_and_heals", || {
        Box::pin(hostile_volumes::missing_secret())
    }),
    ("too_much_disk_is_evicted", || {
        Box::pin(hostile_volumes::eviction())
    }),
    ("images_with_odd_links_start", || {
        Box::pin(hostile_images::links())
    }),
    ("the_same_layer_twice_starts", || {
        Box::pin(hostile_images::same_layer_twice())
    }),
    ("image_volumes_are_writable_below_a_read_only_root", || {
        Box::pin(hostile_images::image_volumes())
    }),
    (
        "a_missing_working_directory_is_made_below_a_read_only_root",
        || Box::pin(hostile_images::missing_working_directory()),
    ),
];

/// Tests that could not be run are no success where it matters.
fn not_run(why: &str) -> ExitCode {
    eprintln!("not run: {why}");
    if std::env::var_os("CI").is_some_and(|value| value == "true") {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments
        .get(1)
        .is_some_and(|verb| verb == kinglet_node::HELPER_VERB)
    {
        return kinglet_node::helper(&arguments[2..]);
    }
    if arguments.get(1).is_some_and(|word| word == "attack") {
        attacker::main(&arguments[2..]);
        return ExitCode::SUCCESS;
    }
    if !rustix::process::geteuid().is_root() {
        return not_run("containers need root");
    }
    if !Path::new(world::BUSYBOX).exists() {
        return not_run(&format!(
            "the container tests need {} (apt-get install busybox-static)",
            world::BUSYBOX
        ));
    }
    // Before there is another thread: all of them have the keys of the one that starts them.
    attacker::hold_a_key();
    let written = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_filter(tracing_subscriber::EnvFilter::from_default_env());
    tracing_subscriber::registry()
        .with(written)
        .with(faults::Faults)
        .init();
    let wanted: Vec<&String> = arguments[1..]
        .iter()
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let mut failed = 0;
    for (name, case) in CASES.iter().filter(|(name, _)| {
        wanted.is_empty() || wanted.iter().any(|word| name.contains(word.as_str()))
    }) {
        let began = Instant::now();
        let runtime = || {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .expect("runtime")
        };
        let outcome = std::panic::catch_unwind(|| runtime().block_on(case()));
        runtime().block_on(world::sweep());
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        failed += u32::from(outcome.is_err());
        eprintln!(
            "test {name} ... {verdict} ({:.1} s)",
            began.elapsed().as_secs_f64()
        );
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

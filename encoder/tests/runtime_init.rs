//! Loading ONNX Runtime into the process: once, the same for all, and a failure leaves the process able to try again. One
//! test, since a process has one ONNX Runtime.

use std::fs;

use anchorite_encoder::hub::HubOptions;
use anchorite_encoder::runtime::{Provider, RuntimeError, RuntimeOptions, doctor, init};

#[test]
fn a_process_loads_one_library_after_failures_and_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.so");
    fs::write(&text, "not a library").unwrap();
    let wrong = RuntimeOptions { library: Some(text.clone()), ..RuntimeOptions::default() };
    let sick = doctor::report(&wrong, &HubOptions::default());
    assert!(sick.onnx_runtime.problem.unwrap().contains("text.so"));
    assert!(matches!(init(&wrong, &|_| {}), Err(RuntimeError::Named { .. })));
    assert!(matches!(init(&RuntimeOptions::default(), &|_| {}), Err(RuntimeError::NotFound { .. })));

    let options = RuntimeOptions::from_env();
    let runtime = std::thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| scope.spawn(|| init(&options, &|_| {}).unwrap())).collect();
        all.into_iter().map(|one| one.join().unwrap()).reduce(|a, b| if std::ptr::eq(a, b) { a } else { panic!() }).unwrap()
    });
    assert!(runtime.path().is_file() && runtime.version().starts_with("1."));
    assert!(runtime.available_providers().iter().any(|name| name == "CPUExecutionProvider"));
    runtime.check_provider(Provider::Cpu).unwrap();
    ort::session::Session::builder(runtime.environment()).unwrap();

    let same = RuntimeOptions { library: Some(runtime.path().to_owned()), ..RuntimeOptions::default() };
    assert!(std::ptr::eq(init(&same, &|_| {}).unwrap(), runtime));
    assert!(std::ptr::eq(init(&RuntimeOptions::default(), &|_| {}).unwrap(), runtime));
    let error = init(&wrong, &|_| {}).unwrap_err();
    assert!(matches!(&error, RuntimeError::AlreadyLoaded { asked, .. } if *asked == text), "{error:?}");

    let hub = HubOptions { token: Some("secret".to_owned()), ..HubOptions::default() };
    let report = doctor::report(&options, &hub);
    assert_eq!(report.onnx_runtime.library.as_deref(), Some(runtime.path()));
    assert_eq!(report.onnx_runtime.problem, None);
    let json = serde_json::to_string(&report).unwrap();
    assert!(json.contains("CPUExecutionProvider") && json.contains("cpu_features"), "{json}");
    assert!(report.hub.has_token && !json.contains("secret"), "{json}");
}

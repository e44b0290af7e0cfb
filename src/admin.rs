//! The separate listener for operators: metrics, liveness and readiness; no configuration, environment or secret on display.

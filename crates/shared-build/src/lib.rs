//! Has no code. It requests each library that the workspace uses, with all features that any of its
//! packages needs.
//!
//! Cargo builds a library once for each set of features, and the set is the union of what the
//! selected packages request. So tests, programs and Lambdas would each build the SDKs of AWS anew.
//! `cargo xtask` selects this package in every build: then the sets are the same, and each library
//! is built once. Deployed programs are built without it.

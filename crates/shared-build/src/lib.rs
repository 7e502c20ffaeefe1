//! Has no code: it asks for each library that the workspace uses, with all features that any of its
//! packages wants.
//!
//! cargo builds a library once for each set of features, and the set is the union of what the
//! selected packages ask for. So tests, programs and Lambdas would each build the SDKs of AWS for
//! themselves. `cargo xtask` selects this package beside whatever else it builds: then the sets are
//! the same, and each library is built once. What is deployed is built without it.

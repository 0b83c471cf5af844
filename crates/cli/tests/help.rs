//! What the command line says of itself, and of lines that it does not understand.
//! `TRYCMD=overwrite cargo test -p dormouse-cli --test help` writes it down anew.

#[test]
fn help_and_usage_errors() {
    trycmd::TestCases::new()
        .register_bin("dormouse", std::path::Path::new(env!("CARGO_BIN_EXE_dormouse")))
        .env("COLUMNS", "100")
        .case("tests/cmd/*.trycmd");
}

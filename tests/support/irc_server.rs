//! A real InspIRCd with services on free ports, and a plain client for the people of the tests.

#![allow(dead_code, unreachable_pub)] // every test file uses a part of this

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::daemon::{DEADLINE, free_port, not_run};

pub struct IrcServer {
    children: Vec<Child>,
    folder: tempfile::TempDir,
    pub plain: u16,
    pub tls: u16,
}

impl IrcServer {
    /// `None` when the packages are missing (which fails in CI).
    pub fn start() -> Option<Self> {
        for program in ["inspircd", "atheme-services", "openssl"] {
            if Command::new("which").arg(program).output().is_ok_and(|output| !output.status.success()) {
                not_run(&format!("{program} is not installed"));
                return None;
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let (plain, tls, link) = (free_port(), free_port(), free_port());
        let path = folder.path();
        certificate(path);
        std::fs::create_dir(path.join("run")).unwrap();
        std::fs::create_dir(path.join("atheme")).unwrap();
        std::fs::write(path.join("motd"), "hi\n").unwrap();
        std::fs::write(path.join("inspircd.conf"), inspircd_config(path, plain, tls, link)).unwrap();
        std::fs::write(path.join("atheme.conf"), atheme_config(link)).unwrap();
        // The servers refuse to run as root, and then need to reach their files.
        open_for_all(path);
        let config = path.join("inspircd.conf");
        let mut server = Self { children: Vec::new(), folder, plain, tls };
        server.spawn("inspircd", &["--config", &config.to_string_lossy(), "--nofork"]);
        server.wait_for(plain);
        let path = server.folder.path().to_owned();
        let text = |name: &str| path.join(name).to_string_lossy().into_owned();
        server.spawn(
            "atheme-services",
            &[
                "-n",
                "-c",
                &text("atheme.conf"),
                "-D",
                &text("atheme"),
                "-l",
                &text("atheme/log"),
                "-p",
                &text("atheme/pid"),
            ],
        );
        Some(server)
    }

    fn spawn(&mut self, program: &str, arguments: &[&str]) {
        let mut command = if nix::unistd::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", program]);
            command
        } else {
            Command::new(program)
        };
        let log = std::fs::File::create(self.folder.path().join(format!("{program}.out"))).unwrap();
        let child =
            command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn();
        self.children.push(child.unwrap());
    }

    fn wait_for(&self, port: u16) {
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = || std::fs::read_to_string(self.folder.path().join("inspircd.out")).unwrap_or_default();
            assert!(started.elapsed() < DEADLINE, "InspIRCd does not start: {}", log());
            std::thread::yield_now();
        }
    }

    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// Registers a services account; waits until the services are there.
    pub fn register(&self, nick: &str, password: &str) {
        let started = Instant::now();
        loop {
            let mut person = Person::connect(self.plain, nick);
            person.write(&format!("PRIVMSG NickServ :REGISTER {password} {nick}@example.test"));
            let said = person.wait_for_any(&["registered", " 401 ", "already"]);
            person.write("QUIT");
            if !said.contains(" 401 ") {
                return;
            }
            assert!(started.elapsed() < DEADLINE, "the services did not come: {said}");
        }
    }
}

impl Drop for IrcServer {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn certificate(folder: &Path) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args([
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

fn open_for_all(folder: &Path) {
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        let mode = if path.is_dir() { 0o777 } else { 0o666 };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
}

fn inspircd_config(folder: &Path, plain: u16, tls: u16, link: u16) -> String {
    let folder = folder.display();
    let modules = [
        "md5",
        "sha1",
        "sha256",
        "ssl_gnutls",
        "spanningtree",
        "cap",
        "sasl",
        "services_account",
        "ircv3",
        "ircv3_msgid",
        "ircv3_echomessage",
        "ircv3_servertime",
        "ircv3_labeledresponse",
        "ircv3_batch",
        "ircv3_accounttag",
        "ircv3_ctctags",
        "chanhistory",
    ];
    let modules: String = modules.iter().map(|module| format!("<module name=\"{module}\">\n")).collect();
    format!(
        r#"<server name="irc.test.local" description="test" network="TestNet" id="1AA">
<admin name="a" email="a@localhost" nick="a">
<bind address="127.0.0.1" port="{plain}" type="clients">
<bind address="127.0.0.1" port="{tls}" type="clients" sslprofile="t">
<bind address="127.0.0.1" port="{link}" type="servers">
{modules}<sslprofile name="t" provider="gnutls" certfile="{folder}/cert.pem" keyfile="{folder}/key.pem" hash="sha256">
<link name="services.test.local" ipaddr="127.0.0.1" port="{link}" allowmask="127.0.0.1" sendpass="linkpw" recvpass="linkpw">
<uline server="services.test.local" silent="yes">
<sasl target="services.test.local">
<connect allow="*" localmax="200" globalmax="200" timeout="20" pingfreq="60" hardsendq="1M" softsendq="8192" recvq="64K" threshold="1000" commandrate="100000" fakelag="no" resolvehostnames="no" useident="no" modes="">
<performance nouserdns="yes" clonesonconnect="no">
<pid file="{folder}/run/inspircd.pid">
<path datadir="{folder}/run" logdir="{folder}/run" runtimedir="{folder}/run" configdir="{folder}">
<files motd="{folder}/motd">
<log method="file" type="* -USERINPUT -USEROUTPUT" level="default" target="{folder}/run/ircd.log">
"#
    )
}

fn atheme_config(link: u16) -> String {
    let modules = [
        "protocol/inspircd",
        "backend/opensex",
        "crypto/pbkdf2v2",
        "nickserv/main",
        "nickserv/register",
        "nickserv/identify",
        "saslserv/main",
        "saslserv/plain",
    ];
    let modules: String =
        modules.iter().map(|module| format!("loadmodule \"modules/{module}\";\n")).collect();
    format!(
        r#"{modules}serverinfo {{ name = "services.test.local"; desc = "services"; numeric = "00A"; recontime = 1; netname = "TestNet";
 adminname = "a"; adminemail = "a@localhost"; registeremail = "a@localhost"; mta = "/bin/true"; loglevel = {{ all; }};
 maxlogins = 20; maxusers = 0; maxnicks = 5; maxchans = 5; mdlimit = 30; emaillimit = 1000; emailtime = 1; auth = none; casemapping = rfc1459; }};
uplink "irc.test.local" {{ host = "127.0.0.1"; port = {link}; send_password = "linkpw"; receive_password = "linkpw"; }};
nickserv {{ nick = "NickServ"; user = "NickServ"; host = "services.test.local"; real = "ns"; }};
saslserv {{ nick = "SaslServ"; user = "SaslServ"; host = "services.test.local"; real = "ss"; }};
general {{ expiry = 0; commit_interval = 1; }};
"#
    )
}

/// A person with a plain client.
pub struct Person {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
}

impl Person {
    pub fn connect(port: u16, nick: &str) -> Self {
        let writer = TcpStream::connect(("127.0.0.1", port)).unwrap();
        writer.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut person = Self { reader: BufReader::new(writer.try_clone().unwrap()), writer };
        person.write(&format!("NICK {nick}"));
        person.write(&format!("USER {nick} 0 * :{nick}"));
        person.wait_for(" 001 ");
        person
    }

    pub fn write(&mut self, line: &str) {
        self.writer.write_all(format!("{line}\r\n").as_bytes()).unwrap();
    }

    pub fn wait_for(&mut self, wanted: &str) -> String {
        self.wait_for_any(&[wanted])
    }

    /// The next line with one of these in it.
    pub fn wait_for_any(&mut self, wanted: &[&str]) -> String {
        let started = Instant::now();
        while started.elapsed() < DEADLINE {
            let mut line = String::new();
            self.reader
                .read_line(&mut line)
                .unwrap_or_else(|error| panic!("waiting for {wanted:?}: {error}"));
            assert!(!line.is_empty(), "the server closed the connection before {wanted:?}");
            if let Some(token) = line.strip_prefix("PING ") {
                let pong = format!("PONG {}", token.trim());
                self.write(&pong);
            }
            if wanted.iter().any(|wanted| line.contains(wanted)) {
                return line.trim_end().to_owned();
            }
        }
        panic!("nothing with {wanted:?} came");
    }

    /// True when nothing with `unwanted` comes before the server answers a PING.
    pub fn hears_nothing_of(&mut self, unwanted: &str) -> bool {
        self.write("PING :so-far");
        !self.wait_for_any(&[unwanted, "so-far"]).contains(unwanted)
    }

    pub fn read_timeout(&self, timeout: Duration) {
        self.writer.set_read_timeout(Some(timeout)).unwrap();
    }
}

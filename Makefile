# `make run` builds and starts the daemon; `make test` installs what the tests need and runs everything.

TARGET := $(or $(CARGO_TARGET_DIR),target)
SEEDS ?= 2000

.PHONY: run test check install-test-needs simulate bench measure install clean

run:
	cargo build --release
	exec $(TARGET)/release/spacebot run

test: install-test-needs check
	cargo test --no-fail-fast

check:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

install-test-needs:
	bash tests/install.sh

# More seeds than `make test`; a failing one is printed and replays with SPACEBOT_SIM_SEED=<n>.
simulate:
	SPACEBOT_SIM_SEEDS=$(SEEDS) cargo test --release --test simulation -- --nocapture the_promises

bench:
	cargo build --release
	cargo bench --bench figures

measure:
	cargo test --test tidy -- --nocapture measure

# As root: the binary, the unit and its user.
install:
	cargo build --release
	[ -n "$(DESTDIR)" ] || id spacebot >/dev/null 2>&1 || useradd --system --home-dir /var/lib/spacebot --shell /usr/sbin/nologin spacebot
	install -D -s -m 755 $(TARGET)/release/spacebot $(DESTDIR)/usr/local/bin/spacebot
	install -D -m 644 systemd/spacebot.service $(DESTDIR)/etc/systemd/system/spacebot.service

clean:
	cargo clean

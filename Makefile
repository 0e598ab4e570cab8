# `make run` builds and starts the daemon; `make test` installs what the tests need and runs everything.

TARGET := $(or $(CARGO_TARGET_DIR),target)
SEEDS ?= 2000
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: run test check install-test-needs simulate bench measure install trial clean

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
	cargo test -q --test tidy -- --nocapture measure

# As yourself, not as root: only the lines that need it ask for sudo.
install:
	cargo build --release
	$(SUDO) install -D -s -m 755 $(TARGET)/release/spacebot $(DESTDIR)/usr/local/bin/spacebot
	$(SUDO) install -D -m 644 systemd/spacebot.service $(DESTDIR)/etc/systemd/system/spacebot.service
	[ -n "$(DESTDIR)" ] || id -u spacebot >/dev/null 2>&1 || $(SUDO) useradd --system --user-group --no-create-home \
	  --home-dir /var/lib/spacebot --shell /usr/sbin/nologin spacebot
	[ -n "$(DESTDIR)" ] || $(SUDO) install -d -m 750 -o root -g spacebot /etc/spacebot
	if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then $(SUDO) systemctl daemon-reload; fi
	@echo "start it: sudo systemctl enable --now spacebot"

# Runs the unit under a real systemd in namespaces of its own (root); LOWER=/path/to/a/root for another system.
trial:
	cargo build
	$(SUDO) env LOWER="$(LOWER)" bash tests/systemd/trial.sh $(TARGET)/debug/spacebot systemd/spacebot.service

clean:
	cargo clean

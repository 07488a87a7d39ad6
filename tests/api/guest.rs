//! The guest's binary in a sandbox: no command can replace it, whichever user it runs as.

use errand_proto::v1::*;

use crate::support::{client::ended, docker::Image, server::Server};

/// A shell script that tries to replace the binary, and reports what is left of it and which user ran the script.
const REPLACING: &str = r#"
for file in /.errand/errand-bridge-* /run/errand/*; do
  [ -e "$file" ] || continue
  directory=${file%/*}
  before=$(cksum <"$file")
  (echo '#!/bin/sh' >"$file") 2>/dev/null && echo written
  rm -f "$file" 2>/dev/null && echo removed
  mv "$file" "$file.old" 2>/dev/null && echo moved
  cp /bin/sh "$directory/more" 2>/dev/null && echo added
  chmod 777 "$file" 2>/dev/null && echo changed
  mv "$directory" "$directory.old" 2>/dev/null && echo "moved all"
  mv "${directory%/*}" "${directory%/*}.old" 2>/dev/null && [ "${directory%/*}" ] && echo "moved what is above"
  umount "$directory" 2>/dev/null && echo unmounted
  mount -o remount,rw "$directory" 2>/dev/null && echo remounted
  mount -t tmpfs none "$directory" 2>/dev/null && echo covered
  [ "$(cksum <"$file")" = "$before" ] || echo replaced
  echo tried >/tmp/tried
done
cat /tmp/tried
for process in /proc/[0-9]*; do
  [ "$(readlink $process/exe)" ] && tr '\\0' ' ' <$process/cmdline | grep -q errand-bridge && readlink $process/exe
done | sort -u | grep -v -e '^/.errand/errand-bridge-' -e '^/run/errand/errand-bridge-' | grep bridge
ls -A /tmp/errand/.bridge | grep errand-bridge
true
"#;

#[tokio::test]
async fn no_command_replaces_the_bridge_program() {
    for writable_root in [false, true] {
        let Some(server) = Server::on(Image::Debian, &[]).await else { return };
        if writable_root && server.ground.name() == "embedded" {
            // There the root consists of this machine's programs, which are never writable.
            continue;
        }
        let session = server.session("bot", "session");
        let spec = SandboxSpec { writable_root, user: "0".to_owned(), ..SandboxSpec::default() };
        let spec = if server.ground.name() == "docker" { SandboxSpec { user: String::new(), ..spec } } else { spec };
        let sandbox = session.ensure(Some(spec)).await.unwrap();
        assert!(!sandbox.bridge_detail.contains("replace"), "{}", sandbox.bridge_detail);
        let task = session.run(REPLACING).await;
        assert_eq!(session.text(&task).await, "tried\n", "writable root: {writable_root}");
        assert_eq!(ended(&task), "exited 0");
    }
}

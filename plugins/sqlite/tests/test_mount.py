from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import structlog
from kernel_sqlite import SqliteConfig, SqliteDriver
from kernel_sqlite._mount import file_system

from kernel.testing import fake_context

MOUNTS = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:25 / /srv rw shared:5 - nfs4 server:/export rw
31 30 0:26 / /srv/local rw - tmpfs tmpfs rw
32 22 0:27 / /mnt/my\040files rw master:1 - cifs //server/share rw
33 22 0:28 / /over rw - nfs server:/one rw
34 22 0:29 / /over rw - ext4 /dev/sdb1 rw
nonsense
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/orders.db", "ext4"),
        ("/srv/orders.db", "nfs4"),
        ("/srvother/orders.db", "ext4"),
        ("/srv/local/deep/orders.db", "tmpfs"),
        ("/mnt/my files/orders.db", "cifs"),
        ("/over/orders.db", "ext4"),
    ],
)
def test_the_mount_that_is_nearest_tells_the_file_system(path: str, kind: str) -> None:
    assert file_system(Path(path), MOUNTS) == kind


@pytest.mark.parametrize(("kind", "told"), [("nfs4", 1), ("fuse.sshfs", 1), ("ext4", 0), ("overlay", 0)])
async def test_a_file_on_another_machine_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, told: int
) -> None:
    mounts = path.with_name("mountinfo")
    mounts.write_text(f"30 22 0:25 / {path.parent.resolve()} rw - {kind} server:/export rw\n")
    monkeypatch.setattr("kernel_sqlite._mount.MOUNTS", mounts)
    with structlog.testing.capture_logs() as logs:
        context = attrs.evolve(fake_context("driver/queue"), log=structlog.get_logger())
        async with SqliteDriver(config=SqliteConfig(path=str(path)), context=context).open():
            pass

    assert len([line for line in logs if f"network file system ({kind})" in line["event"]]) == told

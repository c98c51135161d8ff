"""What the hub is told of a server's settings."""

from __future__ import annotations

from typing import Final

from aldis.hub.settings import HubSettings
from aldis.server.config import ServerConfig
from aldis.server.machine import default_budget

# What an idle registered connection costs, measured and rounded up (docs/sizing.md).
PLAIN_BYTES: Final = 8 * 1024
TLS_BYTES: Final = 31 * 1024


def hub_settings(config: ServerConfig) -> HubSettings:
    """The settings of the hub of a server with these settings."""
    return HubSettings(
        auth="open" if config.auth == "open" else "verify",
        token_grace=config.token_grace,
        max_message_bytes=config.max_message_bytes,
        challenge_seconds=config.registration_timeout,
        registration_seconds=config.registration_timeout,
        presence_interval=config.presence_interval,
        max_devices=config.devices_per_user,
        max_watches=config.watches_per_session,
        max_user_watches=config.watches_per_user,
        max_watchers=config.watchers_per_user,
        watches_bytes=config.watches_bytes,
        privacy_bytes=config.privacy_bytes,
        max_privacy_names=config.privacy_names_per_user,
        bad_proofs=config.failed_proofs_per_connection,
        failed_proofs_per_address=config.failed_proofs_per_address,
        failed_proofs_per_name=config.failed_proofs_per_name,
        memory_budget=config.memory_budget or default_budget(),
        connection_bytes=TLS_BYTES if config.secure else PLAIN_BYTES,
        # A single connection is slowed down, never refused. There a message is one unit until it has the bytes of two,
        # here it is up to two, and some are paid in advance.
        user_messages_per_second=max(config.user_messages_per_second, 3 * config.messages_per_second),
        user_bytes_per_second=max(config.user_bytes_per_second, 3 * config.bytes_per_second),
        user_relayed_bytes_per_second=max(config.user_relayed_bytes_per_second, 3 * config.bytes_per_second),
        user_discovers_per_second=config.user_discovers_per_second,
        relay=config.relay,
        user_sealed_bytes_per_second=config.user_sealed_bytes_per_second,
        pair_sealed_bytes_per_second=config.pair_sealed_bytes_per_second,
        max_relay_file_bytes=config.max_relay_file_bytes,
        resume_window=config.resume_window,
        new_names_per_address=config.new_names_per_address,
        max_detached=config.max_connections,
        detached_bytes=config.detached_bytes,
        detached_user_bytes=config.detached_bytes_per_user,
        unsent_bytes=config.outgoing_queue_bytes // 2,
        ping_interval=config.ping_interval,
        pong_timeout=config.ping_interval,
    )

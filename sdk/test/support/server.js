/**
 * A real signaling server, in a process of its own: `aldis serve`.
 *
 *     const server = await startServer();
 *     new SignalingClient(server.url, 'alice');
 *     await server.kill();
 *     const again = await startServer({ port: server.port });
 *     await again.stop();
 *
 * The environment variable ALDIS names the command; without it, it is that of the checkout's virtual environment.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { fileURLToPath } from 'node:url';

const ALDIS = process.env.ALDIS ?? fileURLToPath(new URL('../../../.venv/bin/aldis', import.meta.url));

/**
 * A server for one test: it is killed with the test's end, also when that comes before it serves. (Whoever hears of it
 * only then leaves a process behind that keeps this one from ending.)
 */
export function served(t, options) {
  const starting = startServer(options);
  t.after(async () => (await starting).kill());
  return starting;
}

// As in tests/support/ports.py: below the range that the kernel chooses from. A port that it has chosen may be somebody else's
// by the time that a server comes back to it. Each process begins elsewhere.
let nextPort = 11_000 + ((process.pid * 100) % 20_000);

/** A port of 127.0.0.1 on which nobody listens, another one each time. */
async function freePort() {
  for (;;) {
    const probe = createServer().listen(nextPort++, '127.0.0.1');
    try {
      await once(probe, 'listening');
    } catch {
      continue; // somebody else's
    }
    const { port } = probe.address();
    probe.close();
    await once(probe, 'close');
    return port;
  }
}

/** Start it, and wait until it serves. `options` are those of `aldis serve`: `{ port: 0, resumeWindow: 1, relay: false }`. */
export async function startServer(options = {}) {
  const port = options.port ?? (await freePort());
  const all = { host: '127.0.0.1', port, adminPort: 'none', data: ':memory:', logFormat: 'json', ...options };
  const flags = Object.entries(all).flatMap(([name, value]) => {
    const flag = name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    return value === false ? [`--no-${flag}`] : [`--${flag}`, String(value)];
  });
  const child = spawn(ALDIS, ['serve', ...flags], { stdio: ['ignore', 'ignore', 'pipe'] });
  const gone = once(child, 'exit');
  // A test that fails hard must not leave it behind.
  const kill = () => child.kill('SIGKILL');
  process.once('exit', kill);
  child.once('exit', () => process.off('exit', kill));
  const url = await new Promise((resolve, reject) => {
    let log = '';
    child.stderr.setEncoding('utf8').on('data', (text) => {
      log += text;
      const line = log.split('\n').find((line) => line.includes('"serving"'));
      if (line?.endsWith('}')) resolve(JSON.parse(line).url);
    });
    child.on('error', reject);
    child.on('exit', () => reject(new Error(`the server has ended:\n${log}`)));
  });
  return {
    url,
    port: Number(new URL(url).port),
    /** Ask it to stop, as an operator does; it says goodbye to its clients. */
    async stop() {
      child.kill('SIGTERM');
      assert.deepEqual(await gone, [0, null]);
    },
    /** `kill -9`, unless it has ended already. */
    async kill() {
      kill();
      await gone;
    },
  };
}

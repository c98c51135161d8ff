/**
 * A TCP proxy on loopback whose connections can be cut without a word to either side.
 *
 * For a server it is another server, unless its name is among the `names` there. So it starts first, and is told later
 * where it leads to.
 */
import { once } from 'node:events';
import { connect, createServer } from 'node:net';

/** Forward connections to `port` of this machine. */
export async function startProxy(port = 0) {
  const sockets = new Set();
  const server = createServer((near) => {
    const far = connect(proxy.port, '127.0.0.1');
    for (const [from, to] of [
      [near, far],
      [far, near],
    ]) {
      sockets.add(from);
      from.pipe(to);
      from.on('error', () => to.destroy());
      from.on('close', () => sockets.delete(from));
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  // Not resetAndDestroy(): where that meets a socket that is half closed already, Node.js never ends ("reset EINVAL").
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  const host = `127.0.0.1:${server.address().port}`;
  const proxy = {
    /** Where it leads to. */
    port,
    host,
    url: `ws://${host}`,
    cut,
    close() {
      server.close();
      cut();
    },
  };
  return proxy;
}

/** A TCP proxy on loopback whose connections can be cut without a word to either side. */
import { once } from 'node:events';
import { connect, createServer } from 'node:net';

/** Forward connections to a port of this machine. */
export async function startProxy(port) {
  const sockets = new Set();
  const server = createServer((near) => {
    const far = connect(port, '127.0.0.1');
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
  return {
    url: `ws://127.0.0.1:${server.address().port}`,
    cut,
    close() {
      server.close();
      cut();
    },
  };
}

// The minimal relay on `ws`: what a sensible person writes in ten minutes, with nothing that costs time for nothing.
//
// It speaks the dialect of benchmarks/load/dialects.py, class Minimal: `register {userId}` is answered with `registered`;
// anything with a `to` is passed on with `from`. It proves nothing, keeps nothing and watches nothing.
// Compression is off, as is the default of `ws`; one process, one thread.
import { WebSocketServer } from 'ws';

const port = Number(process.argv[2]);
const users = new Map();
const server = new WebSocketServer({ host: '127.0.0.1', port, perMessageDeflate: false, maxPayload: 65536 });

server.on('connection', (socket) => {
  let user = null;
  socket.on('message', (data) => {
    const message = JSON.parse(data);
    if (message.type === 'register') {
      user = message.userId;
      users.set(user, socket);
      socket.send(JSON.stringify({ type: 'registered', userId: user }));
      return;
    }
    const recipient = users.get(message.to);
    if (recipient === undefined) {
      socket.send(JSON.stringify({ type: 'error', message: `User ${message.to} is not online` }));
      return;
    }
    message.from = user;
    recipient.send(JSON.stringify(message));
  });
  socket.on('error', () => socket.terminate());
  socket.on('close', () => {
    if (users.get(user) === socket) users.delete(user);
  });
});

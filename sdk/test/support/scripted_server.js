/**
 * A server that says byte for byte what the test wants, for what no honest server does.
 *
 *     const server = await startScripted();
 *     const connecting = client.connect();
 *     const line = await server.accept();              // the WebSocket is open
 *     const request = await line.receive();            // the next message of the client
 *     line.say({ type: 'pong', re: request.id });
 *     line.write(frame(BINARY, [1, 2]));               // or raw frames
 *
 * It writes its own WebSocket frames (RFC 6455), since a library would refuse to write wrong ones. `upgrade` can be
 * replaced to answer the handshake with anything; null: with nothing.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';

import { toBase64 } from '../../src/protocol/codec.js';

export const TEXT = 1;
export const BINARY = 2;
export const CLOSE = 8;

/** A frame as a server sends it, unmasked. */
export function frame(opcode, payload) {
  const data = Buffer.from(payload);
  const head = data.length < 126 ? [data.length] : [127, 0, 0, 0, 0, ...new Uint8Array(4)];
  const bytes = Buffer.from([0x80 | opcode, ...head]);
  if (head.length > 1) bytes.writeUInt32BE(data.length, 6);
  return Buffer.concat([bytes, data]);
}

/** The answer of an Aldis server to an upgrade. */
export function accepted(headers, protocol = 'aldis.v1') {
  const key = `${headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`;
  return [
    'HTTP/1.1 101 Switching Protocols',
    'Upgrade: websocket',
    'Connection: Upgrade',
    `Sec-WebSocket-Accept: ${createHash('sha1').update(key).digest('base64')}`,
    ...(protocol ? [`Sec-WebSocket-Protocol: ${protocol}`] : []),
    '\r\n',
  ].join('\r\n');
}

/** Values that come in, and are taken out in order by who waits for them. */
class Queue {
  #values = [];
  #readers = [];

  put(value) {
    const reader = this.#readers.shift();
    if (reader) reader(value);
    else this.#values.push(value);
  }

  take() {
    return this.#values.length ? this.#values.shift() : new Promise((resolve) => this.#readers.push(resolve));
  }
}

/** The server's end of one connection. */
class Line {
  #frames = new Queue();
  #data = Buffer.alloc(0);

  constructor(socket, headers) {
    this.socket = socket;
    this.headers = headers;
    this.gone = new Promise((resolve) => socket.on('close', resolve));
    socket.on('error', () => {});
    socket.on('end', () => socket.end());
    socket.on('data', (data) => {
      this.#data = Buffer.concat([this.#data, data]);
      while (this.#readFrame());
    });
  }

  #readFrame() {
    const data = this.#data;
    if (data.length < 2) return false;
    let size = data[1] & 0x7f;
    const start = size === 126 ? 8 : size === 127 ? 14 : 6;
    if (data.length < start) return false;
    if (size === 126) size = data.readUInt16BE(2);
    if (size === 127) size = data.readUInt32BE(6);
    if (data.length < start + size) return false;
    const mask = data.subarray(start - 4, start);
    const payload = Buffer.from(data.subarray(start, start + size).map((byte, index) => byte ^ mask[index % 4]));
    this.#data = data.subarray(start + size);
    this.#frames.put({ opcode: data[0] & 0x0f, payload });
    return true;
  }

  write(data) {
    this.socket.write(data);
  }

  say(message) {
    this.write(frame(TEXT, JSON.stringify(message)));
  }

  /** A CLOSE frame, and the end of the connection. */
  close(code, reason = '') {
    this.socket.end(frame(CLOSE, [code >> 8, code & 0xff, ...Buffer.from(reason)]));
  }

  /** Cut the connection without a word (why not by a reset: `proxy.js`). */
  hangUp() {
    this.socket.destroy();
  }

  /** The payload of the next frame of a kind, past others. */
  async #next(wanted) {
    for (;;) {
      const { opcode, payload } = await this.#frames.take();
      if (opcode === wanted) return payload;
    }
  }

  /** The next message of the client. */
  async receive() {
    return JSON.parse(await this.#next(TEXT));
  }

  /** What the client says before its CLOSE frame. */
  async receiveAll() {
    const messages = [];
    for (let next; (next = await this.#frames.take()).opcode !== CLOSE;) messages.push(JSON.parse(next.payload));
    return messages;
  }

  /** The client's CLOSE frame: code and reason. */
  async readClose() {
    const payload = await this.#next(CLOSE);
    return [payload.readUInt16BE(0), payload.subarray(2).toString()];
  }

  /** Play the registration through; the client's `register`. */
  async admit(more = {}) {
    const register = await this.receive();
    this.say({ type: 'challenge', nonce: toBase64(new Uint8Array(32)), re: register.id });
    const prove = await this.receive();
    const { userId, device } = register;
    this.say({ type: 'registered', success: true, re: prove.id, userId, device, session: 's', secret: 't', ...more });
    return register;
  }
}

/** Listen on a port of loopback; the test takes the connections with `accept`. */
export async function startScripted({ port = 0 } = {}) {
  const lines = new Queue();
  const open = new Set();
  const server = createServer((_, response) => response.writeHead(404).end('a web page'));
  const scripted = {
    upgrade: accepted,
    /** The next connection, once it has been upgraded. */
    accept: () => lines.take(),
    close() {
      server.close();
      server.closeAllConnections();
      for (const socket of open) socket.destroy();
    },
  };
  server.on('upgrade', ({ headers }, socket) => {
    open.add(socket);
    socket.on('close', () => open.delete(socket));
    const line = new Line(socket, headers);
    const answer = scripted.upgrade(headers);
    if (answer !== null) line.write(answer);
    lines.put(line);
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  scripted.port = server.address().port;
  scripted.url = `ws://127.0.0.1:${scripted.port}`;
  return scripted;
}

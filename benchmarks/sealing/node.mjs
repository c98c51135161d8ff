/** What sealing and opening frames costs the SDK in Node. Prints JSON: by name, microseconds of processor time a frame. */
import { SessionKeys, read } from '../../sdk/src/peer/sealing.js';

const [seconds, cases] = [Number(process.argv[2]), JSON.parse(process.argv[3])];
const [sending, receiving] = [new Uint8Array(44).fill(1), new Uint8Array(44).fill(2)];
const session = new Uint8Array(16);
const ours = await SessionKeys.of(session, sending, receiving);
const theirs = await SessionKeys.of(session, receiving, sending);

let counter = 0;

/** Seal a message and open it, one after the other, as often as fits in the time. */
async function measure(frames, seconds) {
  const end = performance.now() + seconds * 1000;
  const began = process.cpuUsage();
  let messages = 0;
  for (; performance.now() < end; messages++) await theirs.open(read(await ours.seal(counter++, frames)));
  const { user, system } = process.cpuUsage(began);
  return (user + system) / messages / frames.length;
}

const told = {};
for (const [name, size, count] of cases) {
  const frames = Array.from({ length: count }, () => new Uint8Array(size));
  await measure(frames, seconds / 4); // V8 compiles
  told[name] = await measure(frames, seconds);
}
console.log(JSON.stringify(told));

/**
 * The round-trip time of the last minute as a line.
 *
 * A gap in the line is a time without a connection. The scale grows in steps of 1, 2 and 5, so that it seldom jumps.
 */
import { h, setAttribute, setText, svg } from './dom.js';
import { SAMPLED_SECONDS } from './person.js';
import { milliseconds } from './words.js';

/** @import { Sample } from './person.js' */

const WIDTH = 300;
const HEIGHT = 72;
const LEAST_SCALE = 0.005; // seconds: below it, the line would show the noise of a timer

/** @returns {{ element: HTMLElement, render: (samples: Sample[], now: number, connected: boolean) => void }} */
export function chart() {
  const line = svg('path', { class: 'line' });
  const image = svg('svg', {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    preserveAspectRatio: 'none',
    role: 'img',
  });
  const middle = svg('path', { class: 'grid', d: `M0 ${HEIGHT / 2}H${WIDTH}` });
  image.append(middle, line);
  const top = h('span', { class: 'scale', 'aria-hidden': 'true' });
  const current = h('strong', {});
  const element = h(
    'div',
    { class: 'chart' },
    h('div', { class: 'chart-head', 'aria-hidden': 'true' }, h('span', {}, 'Round-trip time'), current),
    h('div', { class: 'plot' }, image, top),
    h('div', { class: 'axis', 'aria-hidden': 'true' }, h('span', {}, `${SAMPLED_SECONDS} s ago`), h('span', {}, 'now')),
  );
  return {
    element,
    render(samples, now, connected) {
      const times = samples.flatMap((sample) => sample.seconds ?? []);
      const scale = step(Math.max(LEAST_SCALE, ...times) * 1.1);
      let path = '';
      let pen = 'M';
      for (const { at, seconds } of samples) {
        const x = WIDTH * (1 - (now - at) / SAMPLED_SECONDS);
        if (seconds !== null) path += `${pen}${x.toFixed(1)} ${(HEIGHT * (1 - seconds / scale)).toFixed(1)}`;
        pen = seconds === null ? 'M' : 'L';
      }
      setAttribute(line, 'd', path);
      setText(top, milliseconds(scale));
      const last = samples.at(-1)?.seconds ?? null;
      const none = connected ? 'not measured yet' : 'not connected';
      setText(current, last === null ? none : milliseconds(last));
      const range = times.length
        ? `, between ${milliseconds(Math.min(...times))} and ${milliseconds(Math.max(...times))}`
        : '';
      const spoken = last === null ? none : `now ${milliseconds(last)}`;
      setAttribute(image, 'aria-label', `Round-trip time of the last minute: ${spoken}${range}`);
    },
  };
}

/** The next of 1, 2, 5, 10, 20, ... that is not below `value`. @param {number} value */
function step(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= value) ?? value;
}

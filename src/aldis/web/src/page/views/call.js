/**
 * A call: the picture of the other side with our own in its corner, the buttons, and the dialog when somebody calls.
 */

/** @import { Person } from '../person.js' */
/** @import { Session } from '../session.js' */
/** @import { View } from '../dom.js' */
import { fill, h, icon, iconButton, nameTag, relabel, setText, uniqueId } from '../dom.js';
import { duration, explainShort, named } from '../words.js';
import { setFace } from './people.js';

const OPENING = 'Opening the microphone…';

/**
 * @param {Session} session
 * @param {Person} person
 * @param {() => void} leave  takes the focus when the call has ended under it
 * @returns {View}
 */
export function callStage(session, person, leave) {
  const { calling } = session;
  const video = (/** @type {string} */ name, /** @type {string} */ label) =>
    // Firefox has Tab stop at a picture, twice, with nothing to do there.
    h('video', { class: name, autoplay: true, playsinline: true, tabindex: -1, 'aria-label': label });
  const theirs = video('their-picture', `Picture of ${person.name}`);
  const ours = video('our-picture', 'Your own picture');
  ours.muted = true; // or we would hear ourselves
  const face = h('div', { class: 'face' });
  const status = h('p', { role: 'status' });
  const clock = h('p', { class: 'call-clock', 'aria-hidden': 'true' });
  const note = h('p', { class: 'call-note', role: 'alert' });
  const mute = iconButton('Mute the microphone', 'microphone', () => calling.toggleMicrophone());
  const camera = iconButton('Turn the camera off', 'camera', () => calling.toggleCamera());
  const fullScreen = iconButton('Full screen', 'full-screen', () =>
    document.fullscreenElement ? document.exitFullscreen() : element.requestFullscreen(),
  );
  const tryAgain = () => session.call(person, { video: calling.video });
  const again = h('button', { type: 'button', onclick: tryAgain }, 'Try again');
  const hangUp = iconButton('Hang up', 'hang-up', () => calling.end(), 'danger');
  const element = h(
    'section',
    { class: 'call', tabindex: -1, 'aria-label': `Call with ${person.name}` },
    h('div', { class: 'call-face' }, face, status),
    theirs,
    ours,
    note,
    h('div', { class: 'call-buttons' }, clock, mute, camera, document.fullscreenEnabled && fullScreen, again, hangUp),
  );
  return {
    element,
    render() {
      const { call, error } = calling;
      const focused = element.contains(document.activeElement);
      element.hidden = calling.person !== person || calling.incoming;
      if (element.hidden && focused) leave();
      if (element.hidden && document.fullscreenElement === element) void document.exitFullscreen();
      show(theirs, element.hidden ? null : (call?.remoteStream ?? null));
      show(ours, element.hidden ? null : calling.localStream);
      if (element.hidden) return;
      theirs.hidden = !hasPicture(theirs.srcObject);
      ours.hidden = !calling.cameraOn;
      setFace(face, person);
      setText(status, error ? explainShort(error) : stateOf(person, call?.state));
      setText(clock, calling.since === null ? '' : duration(performance.now() / 1000 - calling.since));
      setText(note, calling.note);
      note.hidden = !calling.note;
      clock.hidden = calling.since === null;
      element.classList.toggle('small', theirs.hidden && ours.hidden);
      if (error === null && document.activeElement === again) element.focus();
      again.hidden = error === null;
      mute.hidden = camera.hidden = fullScreen.hidden = error !== null;
      if (calling.muted) relabel(mute, 'Unmute the microphone', 'microphone-off');
      else relabel(mute, 'Mute the microphone', 'microphone');
      if (calling.cameraOn) relabel(camera, 'Turn the camera off', 'camera');
      else relabel(camera, 'Turn the camera on', 'camera-off');
      mute.classList.toggle('off', calling.muted);
      camera.classList.toggle('off', !calling.cameraOn);
      relabel(hangUp, error ? 'Close' : 'Hang up', error ? 'close' : 'hang-up');
    },
  };
}

/**
 * The dialog when somebody calls.
 *
 * @param {Session} session
 * @param {(video: boolean) => void} answer
 * @returns {View}
 */
export function incomingCall(session, answer) {
  const { calling } = session;
  const title = uniqueId('title');
  const face = h('div', { class: 'face' });
  // The focus is here, not on a button: who is writing just now must not answer by the next key.
  const who = h('h2', { id: title, tabindex: -1, autofocus: true });
  const what = h('p', { id: `${title}-what` });
  const problem = h('p', { class: 'field-hint wrong', role: 'alert' });
  const withVideo = h('button', { type: 'button', onclick: () => answer(true) }, icon('camera'), 'Accept with video');
  const withAudio = h(
    'button',
    { type: 'button', onclick: () => answer(false) },
    icon('phone'),
    'Accept with audio only',
  );
  const decline = h(
    'button',
    { type: 'button', class: 'danger', onclick: () => calling.end() },
    icon('hang-up'),
    'Decline',
  );
  const element = h(
    'dialog',
    { class: 'incoming', role: 'alertdialog', 'aria-labelledby': title, 'aria-describedby': what.id },
    face,
    who,
    what,
    problem,
    h('div', { class: 'buttons' }, withVideo, withAudio, decline),
  );
  element.addEventListener('cancel', () => calling.end()); // the Escape key
  return {
    element,
    render() {
      const person = calling.incoming ? calling.person : null;
      if (person) {
        setFace(face, person);
        fill(who, person, () => [nameTag(person.name), ' is calling']);
        setText(what, calling.opening ? OPENING : calling.call?.video ? 'Video call' : 'Audio call');
        // Nobody turns on a camera by mistake.
        withVideo.classList.toggle('primary', calling.call?.video ?? false);
        withAudio.classList.toggle('primary', !calling.call?.video);
        setText(problem, calling.error ? explainShort(calling.error) : '');
      }
      if (person && !element.open) element.showModal();
      if (!person && element.open) element.close();
    },
  };
}

/** @param {HTMLVideoElement} video @param {MediaStream | null} stream */
function show(video, stream) {
  if (video.srcObject !== stream) video.srcObject = stream;
}

/** @param {MediaProvider | null} stream */
function hasPicture(stream) {
  return stream instanceof MediaStream && stream.getVideoTracks().some((track) => track.readyState === 'live');
}

/** @param {Person} person @param {string | undefined} state */
function stateOf(person, state) {
  if (state === undefined) return OPENING;
  if (state === 'ringing') return `Calling ${named(person.name)}…`;
  return state === 'connecting' ? 'Connecting…' : `In a call with ${named(person.name)}`;
}

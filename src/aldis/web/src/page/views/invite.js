/**
 * The invitation: a link to copy, to share, or to be read by the camera of a phone.
 */

/** @import { Session } from '../session.js' */
import { copyButton, fill, h, icon, iconButton, setAttribute, uniqueId } from '../dom.js';
import { invitationLink, isThisMachine } from '../invitation.js';
import { generate, toSvg } from '../qr.js';

/**
 * @param {Session} session
 * @param {() => void} given  somebody has the invitation, or is being shown it
 * @returns {{ element: HTMLDialogElement, open: () => void }}
 */
export function inviteDialog(session, given) {
  const panel = invitePanel(session, given);
  const title = uniqueId('title');
  const element = h(
    'dialog',
    { class: 'invite', 'aria-labelledby': title },
    h(
      'div',
      { class: 'dialog-head' },
      h('h2', { id: title }, 'Invite somebody'),
      iconButton('Close', 'close', () => element.close()),
    ),
    panel.element,
  );
  // A click beside the dialog arrives at the dialog itself.
  element.addEventListener('click', (event) => event.target === element && element.close());
  return {
    element,
    open() {
      panel.render();
      element.showModal();
      given();
    },
  };
}

/** @param {Session} session @param {() => void} given  the link has been taken from here */
export function invitePanel(session, given) {
  const id = uniqueId('link');
  const code = h('div', { class: 'qr' });
  const link = h('input', { id, readonly: true, onfocus: () => link.select(), oncopy: given });
  const taken = () => {
    given();
    return link.value;
  };
  const share = () =>
    navigator
      .share({
        title: 'Aldis',
        text: `${session.name} invites you to talk`,
        url: taken(),
      })
      .catch(() => {});
  const element = h(
    'div',
    { class: 'invite-panel' },
    h(
      'p',
      {},
      'Send this link to somebody, or let their phone read the code. They choose a name, and are connected with you.',
    ),
    isThisMachine(location.hostname) &&
      h(
        'p',
        { class: 'fine' },
        'This address works on this computer only, for instance in a second window. For others, open this page under its https address.',
      ),
    code,
    h('label', { for: id }, 'Invitation link'),
    link,
    h(
      'div',
      { class: 'buttons' },
      copyButton('Copy link', taken),
      'share' in navigator && h('button', { type: 'button', onclick: share }, icon('share'), 'Share'),
    ),
    h('p', { class: 'fine' }, 'Your fingerprint is in the link, so that they can be sure that it is you.'),
  );
  return {
    element,
    focus: () => link.focus(),
    render() {
      const address = invitationLink(session, location.href);
      fill(code, address, () => {
        const image = toSvg(generate(address), document, {
          on: '#10151d',
          off: '#ffffff',
          pad: 3,
        });
        setAttribute(image, 'role', 'img');
        setAttribute(image, 'aria-label', 'QR code of the invitation link');
        return [image];
      });
      if (link.value !== address) link.value = address;
    },
  };
}

/**
 * What goes into a conversation: the field to write in, and files and folders that are chosen, pasted or dropped.
 */

/** @import { Folder } from '../folders.js' */
/** @import { Person } from '../person.js' */
/** @import { Session } from '../session.js' */
/** @import { View } from '../dom.js' */
import { h, icon, iconButton, setAttribute } from '../dom.js';
import { chosen, dropped } from '../folders.js';

/**
 * The field to write in.
 *
 * @param {Session} session
 * @param {Person} person
 * @param {() => void} sent
 * @returns {View & { focus: () => void }}
 */
export function composer(session, person, sent) {
  const field = h('textarea', {
    rows: 1,
    'aria-label': `Message to ${person.name}`,
    placeholder: 'Write a message',
    enterkeyhint: 'send',
    oninput: grow,
    onkeydown: (/** @type {KeyboardEvent} */ event) => {
      // While an input method composes a character, Enter chooses it.
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      submit();
    },
    onpaste: (/** @type {ClipboardEvent} */ event) => {
      if (!event.clipboardData?.files.length) return;
      event.preventDefault();
      void session.sendFiles(person, event.clipboardData.files);
    },
  });
  const picker = h('input', {
    type: 'file',
    multiple: true,
    hidden: true,
    'aria-label': 'Files to send',
    onchange: picked,
  });
  const folderPicker = h('input', {
    type: 'file',
    webkitdirectory: true,
    hidden: true,
    'aria-label': 'Folder to send',
    onchange: folderPicked,
  });
  const attach = iconButton('Send files', 'clip', () => picker.click());
  const attachFolder = iconButton('Send a folder', 'folder', () => folderPicker.click(), 'send-folder');
  const send = h(
    'button',
    { type: 'submit', class: 'icon-button primary', 'aria-label': 'Send', title: 'Send' },
    icon('send'),
  );
  const element = h(
    'form',
    { class: 'composer', onsubmit: (/** @type {SubmitEvent} */ event) => (event.preventDefault(), submit()) },
    attach,
    picker,
    attachFolder,
    folderPicker,
    field,
    send,
  );

  function submit() {
    if (field.value.trim()) void session.say(person, field.value.trim());
    field.value = '';
    grow();
    sent();
    field.focus();
  }
  function picked() {
    void session.sendFiles(person, picker.files ?? []);
    picker.value = ''; // so that the same file can be chosen again
  }
  function folderPicked() {
    if (folderPicker.files?.length) void session.sendFolder(person, chosen(folderPicker.files));
    folderPicker.value = '';
  }
  function grow() {
    field.style.height = 'auto';
    field.style.height = `${field.scrollHeight}px`;
  }
  return {
    element,
    focus: () => field.focus(),
    render() {
      const connected = person.presence === 'connected';
      const shut = person.isShut;
      const hint = connected ? 'Write a message' : 'Write for later';
      setAttribute(field, 'placeholder', shut ? 'Nothing is sent now' : hint);
      attach.hidden = connected && !person.can('files');
      attachFolder.hidden = !('webkitdirectory' in folderPicker) || (connected && !person.can('files-2'));
      for (const control of [attach, attachFolder, field, send]) control.disabled = shut;
    },
  };
}

/**
 * Take files and folders that are dropped on `area`.
 *
 * @param {HTMLElement} area
 * @param {(files: File[], folders: Folder[]) => void} take
 */
export function receiveFiles(area, take) {
  area.addEventListener('dragover', (event) => {
    const hasFiles = event.dataTransfer?.types.includes('Files') ?? false;
    area.classList.toggle('dropping', hasFiles);
    if (hasFiles) event.preventDefault();
  });
  area.addEventListener('dragleave', (event) => {
    if (!area.contains(/** @type {Node | null} */ (event.relatedTarget))) area.classList.remove('dropping');
  });
  area.addEventListener('drop', (event) => {
    area.classList.remove('dropping');
    if (!event.dataTransfer?.files.length) return;
    event.preventDefault();
    const { files, folders } = dropped(event.dataTransfer);
    take(files, folders);
  });
}

/**
 * The icons: lines on 24 by 24, each in one path. look/basics.css (`.icon`) gives them the colour of the text around them.
 *
 * They are in the program, not in a file beside it: they have to be there also while the server is not.
 */

/** @typedef {keyof typeof ICONS} IconName */

export const ICONS = {
  phone: 'M5 3h4l2 5-2.5 1.8a11 11 0 0 0 5.7 5.7L16 13l5 2v4a2 2 0 0 1-2 2A16 16 0 0 1 3 5a2 2 0 0 1 2-2z',
  'hang-up':
    'M24 14.1L21.2 16.9L16.2 14.8L16.7 11.8A11 11 0 0 0 8.7 11.8L9.2 14.8L4.2 16.9L1.4 14.1A2 2 0 0 1 1.4 11.3A16 16 0 0 1 24 11.3A2 2 0 0 1 24 14.1z',
  camera:
    'M4.5 6h8a2.5 2.5 0 0 1 2.5 2.5v7a2.5 2.5 0 0 1 -2.5 2.5h-8a2.5 2.5 0 0 1 -2.5 -2.5v-7a2.5 2.5 0 0 1 2.5 -2.5zM15 11l6-3.5v9L15 13',
  'camera-off':
    'M10 6h2.5A2.5 2.5 0 0 1 15 8.5V11l6-3.5v9L15 13M14.5 17a2.5 2.5 0 0 1-2 1h-8A2.5 2.5 0 0 1 2 15.5v-7A2.5 2.5 0 0 1 4.5 6M3 3l18 18',
  microphone:
    'M12 2.5h0a3 3 0 0 1 3 3v5a3 3 0 0 1 -3 3h-0a3 3 0 0 1 -3 -3v-5a3 3 0 0 1 3 -3zM5 11a7 7 0 0 0 14 0M12 18v3.5',
  'microphone-off':
    'M9 9V5.5a3 3 0 0 1 6 0V11M9 10.5a3 3 0 0 0 4.5 2.6M5 11a7 7 0 0 0 11 5.7M18.6 13.4A7 7 0 0 0 19 11M12 18v3.5M3 3l18 18',
  'full-screen': 'M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5',
  clip: 'M20 11.5l-8.3 8.3a5.3 5.3 0 0 1-7.5-7.5l8.6-8.6a3.5 3.5 0 0 1 5 5l-8.5 8.5a1.8 1.8 0 0 1-2.5-2.5l7.7-7.7',
  folder: 'M3 18V6a2 2 0 0 1 2-2h4.5l2.5 3H19a2 2 0 0 1 2 2v9a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2z',
  send: 'M12 20V5M5.5 11.5L12 5l6.5 6.5',
  back: 'M15 5l-7 7 7 7',
  copy: 'M11 8.5h7a2.5 2.5 0 0 1 2.5 2.5v7a2.5 2.5 0 0 1 -2.5 2.5h-7a2.5 2.5 0 0 1 -2.5 -2.5v-7a2.5 2.5 0 0 1 2.5 -2.5zM15.5 5.5v-.5a1.5 1.5 0 0 0-1.5-1.5H5A1.5 1.5 0 0 0 3.5 5v9A1.5 1.5 0 0 0 5 15.5h.5',
  share: 'M12 15V3.5M7.5 8L12 3.5 16.5 8M5 12v6.5A2.5 2.5 0 0 0 7.5 21h9a2.5 2.5 0 0 0 2.5-2.5V12',
  invite: 'M5.5 8a4 4 0 1 0 8 0a4 4 0 1 0 -8 0zM2.5 20.5a7 7 0 0 1 14 0M19 7.5v6M16 10.5h6',
  chart: 'M3 12h4l3-7.5 4.5 15L17.5 12H21',
  close: 'M6 6l12 12M18 6L6 18',
  file: 'M14 3H7a2 2 0 0 0-2 2v14a2 2 0 0 0 2 2h10a2 2 0 0 0 2-2V8zM14 3v5h5',
  verified: 'M12 2.5l8 3v6c0 5-3.4 8.4-8 10-4.6-1.6-8-5-8-10v-6zM8.5 12l2.5 2.5 4.5-5',
  warning: 'M12 3.5L22 20.5H2zM12 10v4.5M12 17.5v.2',
  waiting: 'M3.5 12a8.5 8.5 0 1 0 17 0a8.5 8.5 0 1 0 -17 0zM12 7.5V12l3 2',
  delivered: 'M5 12.5l4.5 4.5L19 7.5',
};

/*! @aldis/client 0.1.0, Apache-2.0 */
export*from"./sdk/core-4d44f7b7.js";

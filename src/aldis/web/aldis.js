/*! @aldis/client 0.1.0, Apache-2.0 */
export*from"./sdk/core-e5e058c4.js";

/*! @aldis/client 0.1.0, Apache-2.0 */
export*from"./sdk/core-c1225835.js";

// What the page asks its server. Texts of answers only ever become text, never markup.

let asking = 0;

// The page says in its root element how much it waits for: for style sheets, and for whoever tests it.
function count(by) {
  asking += by;
  document.documentElement.dataset.asking = asking;
}

async function ask(path) {
  count(1);
  try {
    return await answerTo(path);
  } finally {
    count(-1);
  }
}

async function answerTo(path) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin" });
  } catch {
    throw new Error("The viewer does not answer: has wsi-lmc view ended?");
  }
  if (answer.status === 403) throw new Error("The viewer was started anew: open the address that it printed.");
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}

const at = (slideId) => `/api/slides/${encodeURIComponent(slideId)}`;

export const askSlides = (query) => ask(`/api/slides?${new URLSearchParams(query)}`);
export const askSlide = (slideId) => ask(at(slideId));
export const askOutline = (slideId) => ask(`${at(slideId)}/outline`);
export const askTile = (slideId, row) => ask(`${at(slideId)}/tiles/${row}`);
export const askTileAt = (slideId, x, y) => ask(`${at(slideId)}/tiles/?x=${Math.floor(x)}&y=${Math.floor(y)}`);
export const askNearest = (slideId, row) => ask(`${at(slideId)}/nearest/${row}`);
export const askLayer = (slideId, name, to) =>
  ask(`${at(slideId)}/layers/${name}${to ? `?slide=${encodeURIComponent(to.slide_id)}&row=${to.row}` : ""}`);

export const tilePicture = (slideId, row) => `/pixels/${encodeURIComponent(slideId)}/tile-${row}.jpg`;
export const piece = (slideId, level, x, y) => `/pixels/${encodeURIComponent(slideId)}/${level}/${x}_${y}.jpg`;

// Brings the parts together: which slide, which value, which tile; and the keys.

import { askLayer, askOutline, askSlide, askTile, askTileAt } from "./api.js";
import { showLegend } from "./legend.js";
import { SlideList } from "./list.js";
import { Panel } from "./panel.js";
import { Stage } from "./stage.js";

const byId = (id) => document.getElementById(id);
const narrow = matchMedia("(max-width: 760px)");
const SLOW_MS = 300;
const KINDS = {
  overview: "The slide’s file is not here: its overview is shown, and stored tiles where you come near.",
  stored: "The slide’s file is not here: stored tiles are shown where you come near.",
  sheet: "Packed images: their tiles in rows, in the order of the store. Come near to see them.",
  nothing: "Neither the slide’s file nor stored tiles are here: places of tiles alone.",
};

let slide = null;
let tile = null; // what similarity is with; it may lie on another slide
let wanted = ""; // the value that stays from slide to slide
let slideTurn = 0;
let layerTurn = 0;

showList(!narrow.matches); // before the slide takes what room there is
const stage = new Stage(pickAt);
const list = new SlideList((slideId) => {
  if (narrow.matches) showList(false);
  open(slideId);
}, fail);
const panel = new Panel(goToHit, closePanel, fail);

function say(text, urgent = false) {
  byId("said").hidden = !text;
  byId("message").textContent = text;
  byId("said").classList.toggle("urgent", urgent);
}

function fail(error) {
  say(error.message, true);
}

// ---------------------------------------------------------------- a slide

async function open(slideId, area = null) {
  const turn = (slideTurn += 1);
  list.mark(slideId);
  say("Opening…");
  let found;
  try {
    found = await askSlide(slideId);
  } catch (error) {
    if (turn === slideTurn) fail(error);
    return;
  }
  if (turn !== slideTurn) return;
  slide = found;
  byId("title").textContent = [slide.slide_id, slide.site, slide.label].filter(Boolean).join(" · ");
  document.title = `${slide.slide_id} · wsi-lmc view`;
  history.replaceState(null, "", `#${encodeURIComponent(slide.slide_id)}`);
  offer(slide.values);
  showLegend(null);
  try {
    await stage.open(slide);
  } catch (error) {
    fail(error);
    return;
  }
  if (turn !== slideTurn) return;
  say(about(slide), isWorrying(slide));
  if (area) stage.goTo(area);
  markTile();
  await Promise.all([showValue(), showOutline(turn)]);
}

function about(found) {
  const said = [];
  const { failure } = found;
  if (failure) said.push(`Failed (${failure.code}): ${failure.reason || failure.means}. ${failure.remedy}`);
  else if (!found.picture) said.push(`Nothing to see yet: ${found.state}.`);
  if (found.picture && KINDS[found.picture.kind]) said.push(KINDS[found.picture.kind]);
  if (found.damaged.length) said.push(`Cannot be read: ${found.damaged.join(", ")}. Run wsi-lmc verify.`);
  return said.join(" ");
}

function isWorrying(found) {
  return Boolean(found.failure || found.damaged.length);
}

async function showOutline(turn) {
  if (!slide.outline) return;
  try {
    const { polygons } = await askOutline(slide.slide_id);
    if (turn === slideTurn) stage.setOutline(polygons);
  } catch (error) {
    if (turn === slideTurn) fail(error);
  }
}

// ---------------------------------------------------------------- a value

function offer(values) {
  const select = byId("value");
  const options = values.map((value, place) => {
    const option = new Option(`${place + 1}  ${value.title}`, value.name);
    option.disabled = value.needs_tile && !tile;
    return option;
  });
  select.replaceChildren(new Option("the slide alone", ""), ...options);
  select.disabled = values.length === 0;
  select.value = options.some((option) => option.value === wanted && !option.disabled) ? wanted : "";
}

async function showValue() {
  const turn = (layerTurn += 1);
  const name = byId("value").value;
  if (!name) {
    showLegend(null);
    await stage.setLayer(null);
    return;
  }
  byId("stage").setAttribute("aria-busy", "true");
  const slow = setTimeout(() => turn === layerTurn && say("Reading values…"), SLOW_MS);
  try {
    const layer = await askLayer(slide.slide_id, name, name === "similarity" ? tile : null);
    if (turn !== layerTurn) return;
    await stage.setLayer(layer);
    if (turn === layerTurn) showLegend(layer.legend);
  } catch (error) {
    if (turn === layerTurn) fail(error);
  } finally {
    clearTimeout(slow);
    if (turn === layerTurn) {
      byId("stage").removeAttribute("aria-busy");
      if (byId("message").textContent.startsWith("Reading")) say(about(slide), isWorrying(slide));
    }
  }
}

function choose(name) {
  wanted = name;
  byId("value").value = name;
  return showValue();
}

function cycle(by) {
  const options = [...byId("value").options].filter((option) => !option.disabled);
  const place = options.findIndex((option) => option.value === byId("value").value);
  choose(options[(place + by + options.length) % options.length].value);
}

// ---------------------------------------------------------------- a tile

async function pickAt(x, y) {
  if (!slide) return;
  const of = slide.slide_id;
  try {
    const found = await askTileAt(of, Math.max(0, x), Math.max(0, y));
    if (slide.slide_id !== of) return;
    if (found.row === null) closePanel();
    else pick(found);
  } catch (error) {
    if (slide.slide_id === of && slide.tile) fail(error);
  }
}

function pick(found) {
  tile = found;
  panel.show(found);
  markTile();
  for (const option of byId("value").options) option.disabled = false;
  if (byId("value").value === "similarity") showValue();
}

function markTile(hit = tile) {
  stage.setTile(hit && slide && hit.slide_id === slide.slide_id ? hit.area : null);
}

function closePanel() {
  panel.hide();
  tile = null;
  markTile();
  const select = byId("value");
  if (select.value === "similarity") choose("");
  for (const option of select.options) option.disabled = option.value === "similarity";
}

// A tile that was found: its slide, with what there is like the tile that was picked.
async function goToHit(hit) {
  try {
    const found = await askTile(hit.slide_id, hit.row);
    wanted = "similarity";
    if (slide && slide.slide_id === hit.slide_id) {
      stage.goTo(found.area);
      await choose("similarity");
    } else {
      await open(hit.slide_id, found.area);
    }
    markTile(found);
  } catch (error) {
    fail(error);
  }
}

// ---------------------------------------------------------------- controls and keys

function showList(shown) {
  document.body.classList.toggle("listed", shown);
  byId("list-button").setAttribute("aria-expanded", String(shown));
}

function toggleOutline() {
  stage.showOutline = byId("outline").checked;
  stage.draw();
}

function escape() {
  if (narrow.matches && document.body.classList.contains("listed")) showList(false);
  else if (panel.open) closePanel();
  else say("");
  stage.viewer.canvas.focus();
}

function pickCentre() {
  if (!slide || !slide.picture) return;
  const { x, y } = stage.centre();
  pickAt(x, y);
}

const KEYS = {
  ArrowLeft: () => stage.pan(-1, 0),
  ArrowRight: () => stage.pan(1, 0),
  ArrowUp: () => stage.pan(0, -1),
  ArrowDown: () => stage.pan(0, 1),
  "+": () => stage.zoom(1.5),
  "=": () => stage.zoom(1.5),
  "-": () => stage.zoom(1 / 1.5),
  0: () => stage.whole(),
  j: () => list.step(1),
  "]": () => list.step(1),
  k: () => list.step(-1),
  "[": () => list.step(-1),
  v: () => cycle(1),
  V: () => cycle(-1),
  t: pickCentre,
  h: () => {
    stage.showLayer = !stage.showLayer;
    stage.draw();
  },
  o: () => {
    byId("outline").checked = !byId("outline").checked;
    toggleOutline();
  },
  "/": () => {
    showList(true);
    byId("text").focus();
    byId("text").select();
  },
  "?": () => byId("help").showModal(),
  Escape: escape,
};

function isTyping(target) {
  return target.matches("input[type=search], select, input[type=range]");
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || byId("help").open) return;
  if (isTyping(event.target) && event.key !== "Escape") return;
  if (event.key === "Enter" && event.target === stage.viewer.canvas) pickCentre();
  const option = /^[1-9]$/.test(event.key) ? byId("value").options[Number(event.key)] : null;
  const act = option && !option.disabled ? () => choose(option.value) : KEYS[event.key];
  if (!act || (event.target.matches("aside button, aside") && event.key.startsWith("Arrow"))) return;
  event.preventDefault();
  act();
});

byId("value").addEventListener("change", () => choose(byId("value").value));
byId("outline").addEventListener("change", toggleOutline);
byId("strength").addEventListener("input", () => {
  stage.strength = Number(byId("strength").value) / 100;
  stage.draw();
});
byId("whole").addEventListener("click", () => stage.whole());
byId("nearer").addEventListener("click", () => stage.zoom(1.5));
byId("farther").addEventListener("click", () => stage.zoom(1 / 1.5));
byId("understood").addEventListener("click", () => say(""));
byId("help-button").addEventListener("click", () => byId("help").showModal());
byId("similar").addEventListener("click", () => choose("similarity"));
byId("list-button").addEventListener("click", () => showList(!document.body.classList.contains("listed")));

byId("about").open = !narrow.matches;
await list.renew();
const named = () => decodeURIComponent(location.hash.slice(1));
addEventListener("hashchange", () => named() && open(named()));
if (named()) open(named());
else list.open(0);

// What the colours mean, with numbers.

const figure = document.getElementById("legend");

export function showLegend(legend) {
  figure.hidden = !legend;
  if (!legend) return;
  document.getElementById("legend-title").textContent = legend.title;
  document.getElementById("note").textContent = legend.note;
  document.getElementById("scale").hidden = !legend.scale;
  if (legend.scale) {
    document.getElementById("low").textContent = numeral(legend.scale.low);
    document.getElementById("high").textContent = numeral(legend.scale.high);
    drawStrip(legend.scale.colours);
  }
  document.getElementById("classes").replaceChildren(...legend.classes.map(entry));
}

function entry({ name, colour, count }) {
  const line = document.createElement("li");
  const swatch = document.createElement("span");
  swatch.className = "swatch";
  swatch.style.background = colour;
  line.append(swatch, `${name}: ${count.toLocaleString("en")}`);
  return line;
}

function drawStrip(colours) {
  const canvas = document.getElementById("strip");
  const context = canvas.getContext("2d");
  const gradient = context.createLinearGradient(0, 0, canvas.width, 0);
  colours.forEach((colour, place) => gradient.addColorStop(place / (colours.length - 1), colour));
  context.fillStyle = gradient;
  context.fillRect(0, 0, canvas.width, canvas.height);
}

function numeral(value) {
  return String(Number(value.toPrecision(3)));
}

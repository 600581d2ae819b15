-- Times, in milliseconds since 1970 unless stated otherwise.
local floor = math.floor
local timestamp = { timestamp_table_fields = { "second", "minute", "hour", "day", "month", "year" } }
function timestamp.get_utc() return floor(ngx.now()) * 1000 end
function timestamp.get_utc_ms() return ngx.now() * 1000 end
-- Days from 1970 to a date of the Gregorian calendar.
local function days(year, month, day)
  if month <= 2 then year = year - 1 end
  local era = floor(year / 400)
  local of_era = year - era * 400
  local of_year = floor((153 * (month + (month > 2 and -3 or 9)) + 2) / 5) + day - 1
  return era * 146097 + of_era * 365 + floor(of_era / 4) - floor(of_era / 100) + of_year - 719468
end
function timestamp.get_timetable(now)
  local seconds = (now or timestamp.get_utc()) / 1000
  local t = os.date("!*t", floor(seconds))
  t.sec = t.sec + seconds % 1
  t.timestamp = function(self) return days(self.year, self.month, self.day) * 86400 + self.hour * 3600 + self.min * 60 + self.sec end
  return t
end
-- The beginning of the second, minute, … of a time.
function timestamp.get_timestamps(now)
  local t = timestamp.get_timetable(now)
  local day = days(t.year, t.month, t.day) * 86400
  local minute = day + t.hour * 3600 + t.min * 60
  return {
    second = (minute + floor(t.sec)) * 1000, minute = minute * 1000, hour = (day + t.hour * 3600) * 1000, day = day * 1000,
    month = days(t.year, t.month, 1) * 86400000, year = days(t.year, 1, 1) * 86400000,
  }
end
return timestamp
